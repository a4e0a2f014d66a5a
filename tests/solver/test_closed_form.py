"""Closed-form multipliers against the dual function itself, and roots of exact value and bounded slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import Case
from metacpo.solver.closed_form import Scalars, bounded_quotient, bounded_sqrt, classify, multipliers


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
    lam, nu = jax.jit(jax.vmap(lambda p, case: multipliers(p, case, 1e-3)[:2]))(p, case)
    assert {int(k) for k in case} == {Case.RECOVERING, Case.BINDING, Case.SLACK}
    p, best_lam, best_nu = jax.tree.map(np.asarray, (p, lam, nu))
    best = dual_value(best_lam, best_nu, p)
    for _ in range(50):
        lam = best_lam * 10 ** rng.uniform(-0.3, 0.3, count)
        nu = np.maximum(0, best_nu + best_lam * rng.uniform(-0.3, 0.3, count))
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
    lam, nu, roots = multipliers(p, classify(p), 1e-3)
    assert roots.clipped and roots.B == 0
    assert 100 < lam < 1e4 and jnp.isfinite(nu)


FLOOR, TINY = 1e-2, 1e-12


@pytest.mark.parametrize("x", [0.5, 1e-2])
def test_above_the_floor_they_are_the_plain_functions(x64, x):
    x, floor, tiny = jnp.array(x), jnp.array(FLOOR), jnp.array(TINY)
    a = jnp.array([2.0, -3.0])
    np.testing.assert_allclose(bounded_sqrt(x, floor), np.sqrt(x))
    np.testing.assert_allclose(jax.grad(bounded_sqrt)(x, floor), 0.5 / np.sqrt(x))
    np.testing.assert_allclose(bounded_quotient(a, x, floor, tiny), a / np.sqrt(x))
    for mode in (jax.jacfwd, jax.jacrev):
        by_a, by_x = mode(bounded_quotient, (0, 1))(a, x, floor, tiny)
        np.testing.assert_allclose(by_a, np.eye(2) / np.sqrt(x))
        np.testing.assert_allclose(by_x, -0.5 * a * x**-1.5)


@pytest.mark.parametrize("x", [1e-5, 0.0, -1e-9])
def test_below_the_floor_the_slope_is_that_at_the_floor(x64, x):
    x, floor, tiny = jnp.array(x), jnp.array(FLOOR), jnp.array(TINY)
    np.testing.assert_allclose(bounded_sqrt(x, floor), np.sqrt(max(x, 0)))
    np.testing.assert_allclose(jax.grad(bounded_sqrt)(x, floor), 5.0)
    for mode in (jax.jacfwd, jax.jacrev):
        by_a, by_x = mode(bounded_quotient, (0, 1))(jnp.array([2.0]), x, floor, tiny)
        np.testing.assert_allclose(by_a, [[10.0]])
        np.testing.assert_allclose(by_x, [-1000.0])


def test_second_derivatives_are_finite_at_zero():
    zero, floor, tiny = jnp.float32(0), jnp.float32(FLOOR), jnp.float32(TINY)
    assert jnp.isfinite(jax.hessian(bounded_sqrt)(zero, floor))
    assert jnp.isfinite(jax.hessian(bounded_quotient, 1)(jnp.float32(1), zero, floor, tiny))
