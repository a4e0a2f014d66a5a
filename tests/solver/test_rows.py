"""Many constraints against an interior-point solver, their optimality conditions and degenerate rows by hand."""

from functools import partial

import equinox as eqx
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
    cases = sum(agrees_with_the_oracle(125, n, m) for n, m in ((3, 8), (8, 5), (20, 8), (60, 3)))
    assert np.all(cases >= 25), cases


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


def test_one_row_and_a_row_that_asks_nothing_are_the_closed_form_of_one_row(x64):
    """Also the derivative; for INFEASIBLE λ and ν have another normalisation."""
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
    feasible = case != Case.INFEASIBLE
    np.testing.assert_allclose(lam[feasible], lams[feasible], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(nu[feasible], nus[feasible], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose((lam / nu)[~feasible], (lams / nus)[~feasible], rtol=1e-8)
    for by_one, by_many in zip(one[0], many[0], strict=True):
        scale = np.max(np.abs(by_one), axis=tuple(range(1, by_one.ndim)), keepdims=True) + 1e-3
        np.testing.assert_allclose(by_one / scale, by_many / scale, rtol=0, atol=1e-7)


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
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


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (lambda p: p.g, jnp.array([1.0, np.nan, 0.0]), r"g of shape \(3,\) must be finite"),
        (lambda p: p.b, jnp.full((2, 3), np.inf), r"b of shape \(2, 3\) must be finite"),
        (lambda p: p.c, jnp.array([0.0, -np.inf]), r"c of shape \(2,\) must be finite"),
        (lambda p: p.delta, jnp.array(0.0), r"delta of shape \(\) must be positive, got 0"),
        (lambda p: p.delta, -1.0, r"delta of shape \(\) must be positive, got -1"),
        (lambda p: p.weight, jnp.array([1.0, 0.0]), r"weight of shape \(2,\) must be positive"),
        (lambda p: p.weight, jnp.ones(3), r"weight must have shape \(2,\)"),
        (lambda p: p.c, jnp.ones(3), r"c must have shape \(2,\)"),
    ],
)
def test_bad_numbers_outside_jit_are_refused(where, value, message):
    fine = Problem(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2), None, jnp.array(0.1), jnp.ones(2))
    with pytest.raises(ValueError, match=message):
        eager_solve(eqx.tree_at(where, fine, value))
