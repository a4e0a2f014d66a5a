"""The derivative of the step: finite differences inside every case, finite numbers at every edge."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.solver import Case, Problem, solve

from .problems import EXACT, problem, random_batch

NAMES = ("g", "b", "c", "h", "delta")
SLOPE_BOUND = 60.0  # relative change of g or b to change of x, a few times 1/√edge for edge = 1e-3


def with_closed_over_metric(g, b, c, log_scale, delta, h):
    """The problem whose H = D h D, D = diag(exp(log_scale)), is a function that closes over log_scale [n]."""
    scale = jnp.exp(log_scale)
    structure = jax.ShapeDtypeStruct(g.shape, g.dtype)
    metric = lx.FunctionLinearOperator(lambda v: scale * (h @ (scale * v)), structure, lx.positive_semidefinite_tag)
    return Problem(g, b[None], c[None], metric, delta)


def outputs(args, h):
    """(x, λ, ν) as one vector [n + 2], and the solution."""
    sol = solve(with_closed_over_metric(*args, h), cg=EXACT)
    return jnp.concatenate([sol.step, sol.lam[None], sol.nu]), sol


@pytest.fixture(scope="module")
def jacobians():
    """(reverse, forward, differences): over g, b, c, log_scale, δ, arrays [4 cases · 3, n + 2, ...]."""
    with jax.enable_x64(True):
        g, b, c, h, delta = random_batch(480, seed=4)
        args = (g, b, c, jnp.zeros_like(g), delta)
        evaluate = jax.jit(jax.vmap(outputs))
        _, sol = evaluate(args, h)
        # Strict complementarity: either the constraint has slack or its multiplier is positive.
        slack, nu = jnp.abs(c + jnp.sum(b * sol.step, 1)), sol.nu[:, 0]
        away_from_kinks = ~sol.derivative_clipped & (slack + nu > 1e-2) & (nu < 1e3)
        index = [jnp.flatnonzero(away_from_kinks & (sol.case == case))[:3] for case in range(4)]
        args, h = jax.tree.map(lambda a: a[jnp.concatenate(index)], (args, h))

        reverse = jax.jit(jax.vmap(jax.jacrev(outputs, has_aux=True)))(args, h)[0]
        forward = jax.jit(jax.vmap(jax.jacfwd(outputs, has_aux=True)))(args, h)[0]
        return reverse, forward, central_differences(evaluate, args, h)


def central_differences(evaluate, args, h, width=1e-6):
    """∂outputs/∂args as `jax.jacrev` orders it, in one call: 12 problems, 2 · 20 shifts."""
    unravel = jax.vmap(jax.flatten_util.ravel_pytree(jax.tree.map(lambda a: a[0], args))[1])
    flat = jax.vmap(lambda a: jax.flatten_util.ravel_pytree(a)[0])(args)
    problems, size = flat.shape
    shifts = width * jnp.concatenate([jnp.eye(size), -jnp.eye(size)])
    shifted = (flat[:, None] + shifts).reshape(-1, size)
    values, _ = evaluate(unravel(shifted), jnp.repeat(h, 2 * size, axis=0))
    up, down = jnp.split(values.reshape(problems, 2 * size, -1), 2, axis=1)
    jacobian = jnp.swapaxes((up - down) / (2 * width), 1, 2)
    return jax.vmap(unravel)(jacobian)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("argument", range(5), ids=NAMES)
def test_derivative_equals_finite_differences(jacobians, case, argument):
    reverse, forward, differences = (np.asarray(j[argument][3 * case : 3 * case + 3]) for j in jacobians)
    assert reverse.shape[0] == 3
    scale = np.max(np.abs(differences), axis=tuple(range(1, differences.ndim)), keepdims=True)
    np.testing.assert_allclose(reverse / (scale + 1e-3), differences / (scale + 1e-3), rtol=0, atol=1e-5)
    np.testing.assert_allclose(forward / (scale + 1e-3), reverse / (scale + 1e-3), rtol=0, atol=1e-9)
    # The argument matters in this case, or is known not to.
    independent = {Case.INFEASIBLE: (0,), Case.SLACK: (1, 2)}.get(Case(case), ())
    assert np.all(scale == 0) if argument in independent else np.all(scale > 0)


def edges(dtype):
    """{name: (g, b, c, H, δ, case)} with H = diag(1, 4, 1): s = 1 for b = (1, 0, 0), and 2δ = 1."""
    one, zero, c1 = np.array([0.6, 0.8, 0.0]), np.zeros(3), 1.0
    b, delta = np.array([1.0, 0.0, 0.0]), 0.5
    ulp = 4 * float(jnp.finfo(dtype).eps)
    rows = {
        "one feasible point": (one, b, c1, delta, Case.RECOVERING),
        "just feasible": (one, b, c1 - ulp, delta, Case.RECOVERING),
        "just infeasible": (one, b, c1 + ulp, delta, Case.INFEASIBLE),
        "feasible in all but one point": (one, b, -c1, delta, Case.SLACK),
        "g along −b": (-2 * b, b, -0.5, delta, Case.BINDING),
        "g almost along −b": (-2 * b + ulp * one, b, -0.5, delta, Case.BINDING),
        "g along −b, one feasible point": (-2 * b, b, c1, delta, Case.RECOVERING),
        "g along b, one feasible point": (2 * b, b, c1, delta, Case.SLACK),
        "g along b": (2 * b, b, -0.5, delta, Case.SLACK),
        "g = 0, satisfied": (zero, b, -0.5, delta, Case.SLACK),
        "g = 0, violated": (zero, b, 0.5, delta, Case.RECOVERING),
        "g = 0, infeasible": (zero, b, 2.0, delta, Case.INFEASIBLE),
        "b = 0, satisfied": (one, zero, -0.5, delta, Case.UNCONSTRAINED),
        "b = 0, violated": (one, zero, 0.5, delta, Case.INFEASIBLE),
        "b = 0, c = 0": (one, zero, 0.0, delta, Case.UNCONSTRAINED),
        "c = 0": (one, -b, 0.0, delta, Case.BINDING),
        "g = b = 0": (zero, zero, -0.5, delta, Case.UNCONSTRAINED),
        "g = b = 0, c = 0": (zero, zero, 0.0, delta, Case.UNCONSTRAINED),
        "tiny g and b": (one * 1e-12, -b * 1e-12, -1e-13, delta, Case.BINDING),
        "huge g and b": (one * 1e12, -b * 1e12, -1e11, delta, Case.BINDING),
        "huge c": (one, b, 1e30, delta, Case.INFEASIBLE),
        "hugely satisfied": (one, b, -1e30, delta, Case.SLACK),
    }
    h = np.diag([1.0, 4.0, 1.0])
    return {k: (g, b, np.float64(c), h, np.float64(d), case) for k, (g, b, c, d, case) in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_values_and_derivatives_are_finite_at_every_edge(x64, dtype):
    rows = edges(dtype)
    args = tuple(jnp.asarray(np.stack(a), dtype) for a in zip(*(r[:5] for r in rows.values()), strict=True))

    def derivatives(output, *args):
        """One output's value and gradient, and both once more differentiated forward along (1, 1, …)."""

        def loss(*args):
            sol = solve(problem(*args), cg=EXACT)
            # ∞ says that nothing is known of the errors.
            known = eqx.tree_at(lambda s: (s.stats.error, s.stats.gradient_error), sol, (sol.lam, sol.lam))
            return output @ jnp.concatenate([sol.step, sol.lam[None], sol.nu]), known

        gradient = jax.value_and_grad(loss, range(5), has_aux=True)
        return jax.jvp(lambda *a: gradient(*a)[::-1], args, jax.tree.map(jnp.ones_like, args))

    over_outputs = jax.vmap(derivatives, (0,) + (None,) * 5)
    answers = jax.jit(jax.vmap(over_outputs, (None,) + (0,) * 5))(jnp.eye(5, dtype=dtype), *args)
    (gradient, (_, sol)), _ = answers
    for i, (name, row) in enumerate(rows.items()):
        assert jnp.all(sol.case[i] == row[5]), name
        for leaf in jax.tree.leaves(answers):
            assert leaf.dtype == jax.dtypes.float0 or jnp.all(jnp.isfinite(leaf[i])), name
        for by_input, value in zip(gradient[:2], args[:2], strict=True):
            slope_of_step = jnp.max(jnp.abs(by_input[i, :3])) * jnp.max(jnp.abs(value[i]))
            assert slope_of_step < SLOPE_BOUND, name


def test_step_and_flag_at_the_edges_by_hand(x64):
    rows = edges(jnp.float64)
    args = tuple(jnp.asarray(np.stack(a)) for a in zip(*(r[:5] for r in rows.values()), strict=True))
    sol = jax.jit(jax.vmap(lambda *a: solve(problem(*a), cg=EXACT)))(*args)
    answers = dict(zip(rows, zip(np.asarray(sol.step), np.asarray(sol.derivative_clipped), strict=True), strict=True))
    expected = {
        "one feasible point": ([-1, 0, 0], True),
        "just infeasible": ([-1, 0, 0], False),
        "g along −b": ([0.5, 0, 0], True),
        "g along b": ([-1, 0, 0], False),
        "g = 0, satisfied": ([0, 0, 0], True),
        "g = 0, violated": ([-0.5, 0, 0], True),
        "g = 0, infeasible": ([-1, 0, 0], False),
        "b = 0, violated": ([0, 0, 0], True),
        "b = 0, c = 0": (-np.array([0.6, 0.2, 0]) / np.sqrt(0.52), True),
        "b = 0, satisfied": (-np.array([0.6, 0.2, 0]) / np.sqrt(0.52), False),
        "c = 0": ([0, -0.5, 0], False),
        "g = b = 0": ([0, 0, 0], True),
    }
    for name, (step, edge) in expected.items():
        np.testing.assert_allclose(answers[name][0], step, atol=1e-7, err_msg=name)
        assert answers[name][1] == edge, name


def test_invalid_numbers_give_a_zero_step_and_no_nan():
    good = tuple(np.asarray(a[0]) for a in random_batch(1))
    rows, names = [], []
    for position, name in enumerate(NAMES):
        for bad in (np.nan, np.inf, -np.inf):
            row = [a.copy() for a in good]
            row[position].reshape(-1)[0] = bad
            rows.append(row)
            names.append(f"{name} = {bad}")
    for delta in (0.0, -1.0):
        rows.append([*good[:4], np.float64(delta)])
        names.append(f"delta = {delta}")
    for name, metric in (("zero", np.zeros((6, 6))), ("negative", -np.eye(6))):
        rows.append([*good[:3], metric, good[4]])
        names.append(f"{name} metric")
    args = tuple(jnp.asarray(np.stack(a), jnp.float32) for a in zip(*rows, strict=True))

    def loss(*args):
        sol = solve(problem(*args), cg=EXACT)
        return jnp.sum(sol.step) + sol.lam + sol.nu[0], sol

    gradient, sol = jax.jit(jax.vmap(jax.grad(loss, range(5), has_aux=True)))(*args)
    for i, name in enumerate(names):
        assert sol.case[i] == Case.INVALID, name
        assert jnp.all(sol.step[i] == 0) and sol.lam[i] == 0 and sol.nu[i] == 0 and sol.residual[i] == 1, name
        for leaf in jax.tree.leaves(gradient):
            assert jnp.all(leaf[i] == 0), name
