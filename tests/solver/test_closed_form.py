"""Closed-form multipliers against the dual function itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import Case
from metacpo.solver.closed_form import Scalars, classify, dual


def dual_value(lam, nu, p):
    """D(λ, ν) = min_x of the Lagrangian = −(q + 2νr + ν²s)/2λ + νc − λδ: concave, to be maximised."""
    return -(p.q + 2 * nu * p.r + nu**2 * p.s) / (2 * lam) + nu * p.c - lam * p.delta


def test_multipliers_maximise_the_dual_function(x64):
    rng = np.random.default_rng(0)
    count = 400
    q, s, delta = (jnp.asarray(10 ** rng.uniform(-1, 1, count)) for _ in range(3))
    r = jnp.asarray(rng.uniform(-0.95, 0.95, count)) * jnp.sqrt(q * s)
    c = jnp.asarray(rng.uniform(-1.5, 0.98, count)) * jnp.sqrt(2 * delta * s)
    p = jax.vmap(Scalars)(q, r, s, c, delta, q - r**2 / s)
    case = jax.vmap(classify)(p)
    d = jax.jit(jax.vmap(lambda p, case: dual(p, case, 1e-3)))(p, case)
    assert {int(k) for k in case} == {Case.RECOVERING, Case.BINDING, Case.SLACK}
    p, d = jax.tree.map(np.asarray, (p, d))
    best = dual_value(d.lam, d.nu, p)
    for _ in range(50):
        lam = d.lam * 10 ** rng.uniform(-0.3, 0.3, count)
        nu = np.maximum(0, d.nu + d.lam * rng.uniform(-0.3, 0.3, count))
        assert np.all(dual_value(lam, nu, p) <= best + 1e-9 * np.abs(best))


# q = s = 2δ = 1: the largest |bᵀx| is 1, and the slack step has c + bᵀx = c − r.
@pytest.mark.parametrize(
    ("r", "c", "case"),
    [
        (0.5, 1.1, Case.INFEASIBLE),
        (0.5, 1.0, Case.RECOVERING),
        (0.5, 0.6, Case.RECOVERING),
        (0.5, 0.4, Case.SLACK),
        (-0.5, 0.4, Case.RECOVERING),
        (-0.5, 0.0, Case.BINDING),
        (-0.5, -0.4, Case.BINDING),
        (-0.5, -0.6, Case.SLACK),
        (0.5, -1.1, Case.SLACK),
    ],
)
def test_cases_by_hand(r, c, case):
    one = jnp.float32(1)
    assert classify(Scalars(one, jnp.float32(r), one, jnp.float32(c), one / 2, one)) == case


def test_zero_vectors_by_hand():
    zero, one = jnp.float32(0), jnp.float32(1)
    assert classify(Scalars(zero, zero, one, one / 2, one, zero)) == Case.RECOVERING
    assert classify(Scalars(zero, zero, one, zero, one, zero)) == Case.SLACK
    assert classify(Scalars(one, zero, zero, one, one, one)) == Case.INFEASIBLE
    assert classify(Scalars(one, zero, zero, zero, one, one)) == Case.UNCONSTRAINED


def test_multipliers_stay_finite_where_the_feasible_set_is_one_point():
    one = jnp.float32(1)
    p = Scalars(one, one / 2, one, one, one / 2, 3 * one / 4)  # c = √(2δs): B = 0
    d = dual(p, classify(p), 1e-3)
    assert d.clipped and d.B == 0
    assert 100 < d.lam < 1e4 and jnp.isfinite(d.nu)
