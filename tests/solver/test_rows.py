"""Many constraints against an interior-point solver and their optimality conditions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacpo.solver import Case, Problem
from metacpo.solver import solve as eager_solve

from .problems import (
    EXACT_MANY,
    SHAPES,
    oracle_rows,
    problem,
    problem_rows,
    random_batch,
    random_rows,
    random_rows_batch,
)

# These programs run for milliseconds and take many seconds to optimise.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
solve_batch = quick_jit(jax.vmap(lambda *args: eager_solve(problem_rows(*args), cg=EXACT_MANY)))
solve_one = quick_jit(lambda *args: eager_solve(problem_rows(*args), cg=EXACT_MANY))


def agrees_with_the_oracle(count, n, m):
    """Step, objective and feasibility of `count` random problems to 1e-6 of the region's size; the cases met."""
    batch = random_rows_batch(count, n, m)
    sol = jax.tree.map(np.asarray, solve_batch(*batch))
    assert np.all(sol.stats.converged)
    for i, (g, b, c, h, delta, weight) in enumerate(zip(*map(np.asarray, batch), strict=True)):
        x, feasible = oracle_rows(g, b, c, h, delta, weight)
        step, size, where = sol.step[i], np.sqrt(2 * delta), f"problem {i} of {n, m}"
        assert feasible == (sol.case[i] != Case.INFEASIBLE), where
        assert 0.5 * step @ h @ step <= delta * (1 + 1e-9), where
        reach = size * np.sqrt(np.sum(b * np.linalg.solve(h, b.T).T, axis=1))
        if feasible:
            assert g @ (step - x) <= 1e-6 * size * np.sqrt(g @ np.linalg.solve(h, g)), where
            assert np.all(c + b @ step <= 1e-7 * reach), where
        else:
            violations = [weight @ (np.maximum(c + b @ y, 0) / reach) ** 2 for y in (step, x)]
            assert violations[0] <= violations[1] * (1 + 1e-6), where
        assert np.linalg.norm(step - x) <= 1e-6 * np.linalg.norm(x) + 1e-6 * size, where
    return np.bincount(sol.case, minlength=4)


def test_step_equals_an_interior_point_solver(x64):
    cases = sum(agrees_with_the_oracle(250, n, m) for n, m in ((3, 8), (20, 4)))
    assert np.all(cases >= 25), cases


def test_rows_that_depend_on_nearly_dependent_ones_are_not_broken(x64):
    """Three of eight rows span R³, nearly in a plane: what rounding leaves of the others' distance from them is no
    distance. Taken for one, a step broke a row by 1.5 times what the region can change."""
    g, b, c, h, delta, weight = random_rows_batch(2000, 3, 8, seed=11)
    sol = solve_batch(g, b, c, h, delta, weight)
    reach = jnp.sqrt(2 * delta[:, None] * jnp.einsum("kjn,kjn->kj", b, jnp.linalg.solve(h, b.mT).mT))
    broken = (c + jnp.einsum("kjn,kn->kj", b, sol.step)) / reach
    feasible = np.asarray(sol.case != Case.INFEASIBLE)
    assert feasible.sum() > 900
    assert np.max(np.asarray(broken)[feasible]) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_step_equals_an_interior_point_solver_on_5000_problems(x64, n, m):
    agrees_with_the_oracle(500, n, m)


def kkt_residual(sol, g, b, c, h, delta, weight):
    """The largest violation of any optimality condition, relative to the terms in it."""
    hx = h @ sol.step
    v, s = c + b @ sol.step, jnp.sum(b * jnp.linalg.solve(h, b.T).T, axis=1)
    feasible = sol.case != Case.INFEASIBLE
    nu = jnp.where(feasible, sol.nu, weight * jnp.maximum(v, 0) / s)
    terms = jnp.stack([jnp.where(feasible, g, 0), nu @ b, sol.lam * hx])
    reach = jnp.sqrt(2 * delta * s)
    slackness = jnp.where(feasible, jnp.abs(sol.nu * v) / (jnp.abs(sol.nu) * reach + 1e-30), 0)
    return jnp.max(
        jnp.array(
            [
                jnp.linalg.norm(jnp.sum(terms, 0)) / jnp.max(jnp.linalg.norm(terms, axis=1)),
                jnp.max(jnp.abs(nu - sol.nu)) / (jnp.max(nu) + 1e-30),
                jnp.where(feasible, jnp.max(v / reach), 0),
                jnp.max(slackness),
                sol.lam * jnp.abs(sol.step @ hx / (2 * delta) - 1) / (sol.lam + 1e-30),
                sol.step @ hx / (2 * delta) - 1,
                -jnp.min(sol.nu),
                -sol.lam,
            ]
        )
    )


def drawn(seed, n=7, m=4):
    return tuple(jnp.asarray(a) for a in random_rows(np.random.default_rng(seed), n, m))


seeds = st.integers(0, 10**6)
quick = settings(max_examples=60, deadline=None)


@quick
@given(seed=seeds)
def test_optimality_conditions_hold_to_1e_8(seed):
    with jax.enable_x64(True):
        args = drawn(seed)
        assert kkt_residual(solve_one(*args), *args) <= 1e-8


@quick
@given(seed=seeds, logs=st.tuples(*[st.floats(-6, 6)] * 3))
def test_rotation_and_scaling(seed, logs):
    """x does not see the scale of g, of a row with its c, or of (δ, H); it rotates with the coordinates."""
    with jax.enable_x64(True):
        g, b, c, h, delta, weight = drawn(seed)
        x = solve_one(g, b, c, h, delta, weight).step
        one, rows, two = 10.0 ** logs[0], jnp.asarray(10.0 ** (logs[1] * np.linspace(-1, 1, c.size))), 10.0 ** logs[2]
        scaled = solve_one(g * one, b * rows[:, None], c * rows, h * two, delta * two, weight).step
        Q = jnp.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=h.shape))[0])
        rotated = solve_one(Q @ g, b @ Q.T, c, Q @ h @ Q.T, delta, weight).step
        size = jnp.linalg.norm(x)
        assert jnp.linalg.norm(scaled - x) <= 1e-7 * size
        assert jnp.linalg.norm(rotated - Q @ x) <= 1e-7 * size


@quick
@given(seed=seeds, factor=st.floats(1.0, 3.0))
def test_a_larger_region_is_never_worse(seed, factor):
    with jax.enable_x64(True):
        g, b, c, h, delta, weight = drawn(seed)
        small, large = (solve_one(g, b, c, h, d, weight) for d in (delta, delta * factor))
        s = jnp.sum(b * jnp.linalg.solve(h, b.T).T, axis=1)
        if small.case == Case.INFEASIBLE:
            before, after = (weight @ (jnp.maximum(c + b @ z.step, 0) ** 2 / s) for z in (small, large))
        else:
            assert large.case != Case.INFEASIBLE
            before, after = g @ small.step, g @ large.step
        assert after <= before + 1e-9 * jnp.abs(before)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.dtype != jnp.int32:  # counts of iterations may differ by one
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)
    assert one.case == other.case


def test_vmap_equals_loop(x64):
    batch = random_rows_batch(4, 7, 4)
    batched = solve_batch(*batch)
    for i in range(4):
        assert_same(solve_one(*(a[i] for a in batch)), jax.tree.map(lambda a, i=i: a[i], batched))


@pytest.mark.slow
def test_jit_equals_eager(x64):
    args = [a[0] for a in random_rows_batch(1, 7, 4)]
    assert_same(eager_solve(problem_rows(*args), cg=EXACT_MANY), solve_one(*args))


@pytest.mark.slow
def test_one_row_and_a_row_that_asks_nothing_are_the_closed_form_of_one_row(x64):
    """Also the derivative, and λ and ν of every case."""
    g, b, c, h, delta = random_batch(200, seed=5)

    def loss(rows, g, b, c, h, delta):
        if rows == 1:
            sol = eager_solve(problem(g, b, c, h, delta), cg=EXACT_MANY)
        else:
            b, c = jnp.stack([jnp.zeros_like(b), b]), jnp.stack([-jnp.ones_like(c), c])
            sol = eager_solve(Problem(g, b, c, problem(g, b[0], c[0], h, delta).metric, delta), cg=EXACT_MANY)
        return jnp.sum(jnp.sin(3 * sol.step)), (sol.step, sol.lam, sol.nu[-1], sol.case, sol.derivative_clipped)

    one, many = (
        quick_jit(jax.vmap(jax.grad(partial(loss, k), range(5), has_aux=True)))(g, b, c, h, delta) for k in (1, 2)
    )
    (step, lam, nu, case, edge), (steps, lams, nus, cases, edges) = one[1], many[1]
    np.testing.assert_array_equal(case, cases)
    np.testing.assert_array_equal(edge, edges)
    np.testing.assert_allclose(step, steps, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(lam, lams, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(nu, nus, rtol=1e-7, atol=1e-9)
    for by_one, by_many in zip(one[0], many[0], strict=True):
        scale = np.max(np.abs(by_one), axis=tuple(range(1, by_one.ndim)), keepdims=True) + 1e-3
        np.testing.assert_allclose(by_one / scale, by_many / scale, rtol=0, atol=1e-7)


def test_invalid_numbers_inside_jit_give_a_zero_step_and_no_nan():
    good = [np.asarray(a[0], np.float32) for a in random_rows_batch(1, 6, 3)]
    rows, names = [], []
    for position, name in enumerate(("g", "b", "c", "h", "delta", "weight")):
        for bad in (np.nan, np.inf, -np.inf):
            row = [a.copy() for a in good]
            row[position].reshape(-1)[-1] = bad
            rows.append(row)
            names.append(f"{name} = {bad}")
    for position, value in ((4, 0.0), (4, -1.0), (5, 0.0), (3, np.zeros((6, 6))), (3, -np.eye(6))):
        row = [a.copy() for a in good]
        row[position][...] = value
        rows.append(row)
        names.append(f"{position} = {value}")
    args = tuple(jnp.asarray(np.stack(a)) for a in zip(*rows, strict=True))

    def loss(*args):
        sol = eager_solve(problem_rows(*args), cg=EXACT_MANY)
        return jnp.sum(sol.step) + sol.lam + jnp.sum(sol.nu), sol

    gradient, sol = quick_jit(jax.vmap(jax.grad(loss, range(6), has_aux=True)))(*args)
    for i, name in enumerate(names):
        assert sol.case[i] == Case.INVALID, name
        assert not np.any(sol.step[i]) and sol.lam[i] == 0 and not np.any(sol.nu[i]) and sol.residual[i] == 1, name
        for leaf in jax.tree.leaves(gradient):
            assert jnp.all(leaf[i] == 0), name
