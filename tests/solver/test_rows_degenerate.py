"""Redundant, contradictory and vanishing rows, by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import Case
from metacpo.solver import solve as eager_solve

from .problems import EXACT_MANY, problem_rows

# These programs run for milliseconds and take many seconds to optimise.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
solve_batch = quick_jit(jax.vmap(lambda *args: eager_solve(problem_rows(*args), cg=EXACT_MANY)))

# H = I, n = 3, 2δ = 1. g = −(1, 1, 0)/√2 wants x = (1, 1, 0)/√2.
G = -np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
X, Y, Z, NIL = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]])
HALF = np.sqrt(0.75)
DEGENERATE = {
    "duplicate rows": (G, [X, X, X], [-0.5] * 3, [0.5, HALF, 0], Case.BINDING, 1),
    "scaled duplicates": (G, [X, 7 * X, 1e-6 * X], [-0.5, -3.5, -0.5e-6], [0.5, HALF, 0], Case.BINDING, 1),
    "parallel, the tighter binds": (G, [X, 2 * X, X], [-0.5, -0.8, -0.6], [0.4, np.sqrt(0.84), 0], Case.BINDING, 1),
    "a strip": (G, [X, -X, NIL], [-0.5, 0.1, -1], [0.5, HALF, 0], Case.RECOVERING, 1),
    "an equality as two rows": (G, [X, -X, NIL], [-0.5, 0.5, -1], [0.5, HALF, 0], Case.RECOVERING, 1),
    "contradictory": (G, [X, -X, NIL], [0.5, 0.5, -1], [0, 0, 0], Case.INFEASIBLE, 2),
    "contradictory, moved": (G, [X, -X, NIL], [0.9, 0.5, -1], [-0.2, 0, 0], Case.INFEASIBLE, 2),
    "a hopeless row": (G, [NIL, NIL, X], [0.5, -1, -0.5], [0, 0, 0], Case.INFEASIBLE, 0),
    "a hopeless row beside a violated one": (G, [NIL, X, NIL], [1, 0.5, -1], [-0.5, 0, 0], Case.INFEASIBLE, 1),
    "nothing asked": (G, [NIL, NIL, NIL], [-1, -1, 0], -G, Case.UNCONSTRAINED, 0),
    "all slack": (G, [X, Y, Z], [-1, -1, -1], -G, Case.SLACK, 0),
    "a corner inside the region": (G, [X, Y, Z], [-0.2, -0.3, -1], [0.2, 0.3, 0], Case.BINDING, 2),
    "a corner of n rows": (G - 0.1 * Z, [X, Y, Z], [-0.2, -0.3, -0.1], [0.2, 0.3, 0.1], Case.BINDING, 3),
    "three rows through one edge": (G, [X, Y, X + Y], [-0.2, -0.3, -0.5], [0.2, 0.3, 0], Case.BINDING, 2),
    "g = 0, satisfied": (0 * G, [X, Y, Z], [-0.2, -0.3, 0], [0, 0, 0], Case.SLACK, 0),
    "g = 0, violated": (0 * G, [X, Y, Z], [0.2, 0.3, -1], [-0.2, -0.3, 0], Case.RECOVERING, 2),
    "g along −b": (-X, [X, Y, Z], [-0.5, -1, -1], [0.5, 0, 0], Case.BINDING, 1),
    "one feasible point": (G, [X, Y, NIL], [0.6, 0.8, -1], [-0.6, -0.8, 0], Case.RECOVERING, 2),
    "just infeasible": (G, [X, Y, NIL], [0.66, 0.88, -1], [-0.6, -0.8, 0], Case.INFEASIBLE, 2),
    "hugely violated": (G, [X, NIL, Z], [1e8, -1, -1e8], [-1, 0, 0], Case.INFEASIBLE, 1),
    "c = 0": (G, [X, NIL, -Z], [0, -1, 0], [0, 1, 0], Case.BINDING, 1),
}


def degenerate(dtype):
    """Stacked arrays of the table, H = I, weights 1."""
    count = len(DEGENERATE)
    rows = list(DEGENERATE.values())
    stacked = [np.stack([np.asarray(r[k], dtype) for r in rows]) for k in range(3)]
    h = np.broadcast_to(np.eye(3), (count, 3, 3))
    arrays = (*stacked, h, np.full(count, 0.5), np.ones((count, 3)))
    return tuple(jnp.asarray(a, dtype) for a in arrays)


def test_degenerate_rows_by_hand(x64):
    sol = solve_batch(*degenerate(np.float64))
    for i, (name, (*_, step, case, count)) in enumerate(DEGENERATE.items()):
        assert sol.case[i] == case, name
        np.testing.assert_allclose(sol.step[i], step, atol=3e-7, err_msg=name)
        assert np.sum(sol.active[i]) == count, name
        assert sol.stats.converged[i], name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_values_and_derivatives_are_finite_at_degenerate_rows(x64, dtype):
    """First and second derivatives; steps and λ, ν; and δ → 0."""
    args = degenerate(dtype)
    tiny = 1e-9 if dtype == jnp.float32 else 1e-30
    args = tuple(jnp.concatenate([a, a]) for a in args)
    count = len(DEGENERATE)
    args = (*args[:4], args[4].at[count:].set(tiny), args[5])

    def loss(*args):
        sol = eager_solve(problem_rows(*args), cg=EXACT_MANY)
        return jnp.sum(jnp.cos(sol.step)) + sol.lam + jnp.sum(sol.nu), sol.case

    gradient = jax.grad(loss, range(6), has_aux=True)
    twice = quick_jit(jax.vmap(lambda *a: jax.jvp(lambda *b: gradient(*b)[0], a, jax.tree.map(jnp.ones_like, a))))
    for leaf in jax.tree.leaves(twice(*args)):
        assert leaf.dtype == dtype
        for i, name in enumerate([*DEGENERATE, *DEGENERATE]):
            assert jnp.all(jnp.isfinite(leaf[i])), (name, i >= count)


def test_near_parallel_rows_are_held(x64):
    """Angles from 1e-12 to 1e-2 between two rows, each alone nearly enough: both hold to 1e-6 of the region."""
    rng = np.random.default_rng(0)
    angle = 10 ** rng.uniform(-12, -2, 200)
    g, other, h = rng.normal(size=(200, 5)), rng.normal(size=(200, 5)), np.broadcast_to(np.eye(5), (200, 5, 5))
    first = -g + 0.5 * rng.normal(size=(200, 5))
    b = np.stack([first, first + angle[:, None] * other, rng.normal(size=(200, 5))], axis=1)
    b = b / np.linalg.norm(b, axis=2, keepdims=True)
    c = np.stack([np.full(200, -0.4), -0.4 + angle * rng.normal(size=200), rng.uniform(-1, 0.2, 200)], axis=1)
    args = [jnp.asarray(a) for a in (g, b, c, h, np.full(200, 0.5), np.ones((200, 3)))]
    sol = solve_batch(*args)
    assert np.all(sol.stats.converged) and np.sum(sol.case == Case.INFEASIBLE) == 0
    assert np.max(c + np.einsum("kmn,kn->km", b, sol.step)) < 1e-6
    assert np.all(np.linalg.norm(sol.step, axis=1) <= 1 + 1e-12)
