"""The shortest repair of broken constraints, against a cone program, closed forms and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import CGSettings, Problem, Solved, nearest_feasible, solve

from .problems import _cone_program, dense, random_rows

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def products(b, h):
    return jnp.asarray(b @ np.linalg.solve(h, b.T))


def test_two_orthogonal_breaks_need_the_sum_of_both(x64):
    """Each of .045 alone; a region of .054 that looked at the larger one alone called the pair infeasible."""
    c = jnp.asarray(np.sqrt(2 * np.array([0.045, 0.045])))
    assert float(nearest_feasible(jnp.eye(2), c)) == pytest.approx(0.090)


@pytest.mark.parametrize("shape", [(6, 1), (6, 2), (8, 5), (20, 4), (3, 3)])
def test_it_is_the_length_of_the_shortest_feasible_point(x64, shape):
    """min t s.t. ‖Lᵀx‖ ≤ t, c + bx ≤ 0: as min of the cone program's own radius, found by halving it."""
    length = quick_jit(nearest_feasible)
    rng, compared = np.random.default_rng(0), 0
    for _ in range(12):
        _, b, c, h, _, _ = random_rows(rng, *shape)
        found = float(length(products(b, h), jnp.asarray(c)))
        if not np.isfinite(found):
            assert _cone_program(0 * b[0], b, -c, h, 1e6) is None
            continue
        if found == 0:
            assert np.all(c <= 1e-9)
            continue
        compared += 1
        assert _cone_program(np.zeros(shape[0]), b, -c, h, found * 1.001) is not None
        assert _cone_program(np.zeros(shape[0]), b, -c, h, found * 0.98) is None
    assert compared >= 3


def test_rows_that_contradict_each_other_have_no_repair(x64):
    S = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    assert float(nearest_feasible(S, jnp.array([0.1, 0.1]))) == np.inf
    assert float(nearest_feasible(S, jnp.array([0.1, -0.2]))) == pytest.approx(0.005)


def test_what_no_step_changes_needs_none(x64):
    assert float(nearest_feasible(jnp.zeros((1, 1)), jnp.array([0.5]))) == 0
    S = jnp.array([[0.0, 0.0], [0.0, 2.0]])
    assert float(nearest_feasible(S, jnp.array([0.5, 0.2]))) == pytest.approx(0.01)
    assert float(nearest_feasible(jnp.zeros((0, 0)), jnp.zeros(0))) == 0


@pytest.mark.parametrize("m", [1, 3])
def test_its_derivative_equals_finite_differences(x64, m):
    rng = np.random.default_rng(4)
    root = rng.normal(size=(m, m + 2))
    S, c = jnp.asarray(root @ root.T), jnp.asarray(rng.uniform(0.1, 1.0, m))
    nearest = jax.jit(nearest_feasible)
    slopes = jax.jit(jax.grad(nearest_feasible, (0, 1)))(S, c)
    width = 1e-6
    for slope, argument in zip(slopes, (0, 1), strict=True):
        flat = np.zeros(slope.size)
        for i in range(slope.size):
            shift = width * jnp.eye(slope.size)[i].reshape(slope.shape)
            if argument == 0:  # S is symmetric, whatever entry moves
                shift = (shift + shift.T) / 2
            up, down = (
                nearest(*[x + sign * shift if k == argument else x for k, x in enumerate((S, c))]) for sign in (1, -1)
            )
            flat[i] = (up - down) / (2 * width)
        slope = np.asarray(slope)
        symmetric = (slope + slope.T) / 2 if argument == 0 else slope
        np.testing.assert_allclose(symmetric.ravel(), flat, rtol=1e-5, atol=1e-8)
    assert np.any(np.asarray(slopes[1]) != 0)


@pytest.mark.slow
def test_a_step_from_known_solves_is_the_step(x64):
    """And of combinations of rows nothing is solved again: H⁻¹ is linear."""
    rng = np.random.default_rng(1)
    g, b, c, h, delta, _ = random_rows(rng, 8, 2)
    cg = CGSettings(rtol=1e-14, max_steps=60)
    rows, weights = jnp.asarray(np.vstack([g, b])), jnp.asarray(rng.normal(size=(3, 3)))
    mixed = weights @ rows
    solved = Solved.of(dense(jnp.asarray(h)), rows, cg)
    for known, used in ((solved, rows), (solved.combined(weights), mixed)):
        problem = Problem(used[0], used[1:], jnp.asarray(c), dense(jnp.asarray(h)), jnp.asarray(delta))
        alone, again = solve(problem, cg=cg), solve(problem, solved=known)
        np.testing.assert_allclose(again.step, alone.step, rtol=1e-9, atol=1e-12)
        assert int(again.case) == int(alone.case)
    np.testing.assert_allclose(solved.combined(weights).products(), mixed @ np.linalg.solve(h, mixed.T), rtol=1e-9)
    # m = 0: the row that the solver puts in the place of none is known too
    free = Problem(rows[0], jnp.zeros((0, 8)), jnp.zeros(0), dense(jnp.asarray(h)), jnp.asarray(delta))
    only = jax.tree.map(lambda x: x[:1], solved)
    np.testing.assert_allclose(solve(free, solved=only).step, solve(free, cg=cg).step, rtol=1e-9)
