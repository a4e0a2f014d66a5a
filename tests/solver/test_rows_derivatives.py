"""Derivatives under many constraints: finite differences, a differentiated cone program, unrolled iterations."""

from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import Case, Solved, solve

from . import differentiated
from .problems import EXACT_MANY, problem_rows, random_rows_batch

NAMES = ("g", "b", "c", "h", "delta", "weight")
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
N, M = 5, 3
PER_CASE = 4


def outputs(args, solved=None):
    """(x, λ, ν) as one vector, and the solution. H is symmetrised, so that each entry of it is an input."""
    g, b, c, h, delta, weight = args
    sol = solve(problem_rows(g, b, c, (h + h.T) / 2, delta, weight), cg=EXACT_MANY, solved=solved)
    return jnp.concatenate([sol.step, sol.lam[None], sol.nu]), sol


def vector(*args):
    return outputs(args)[0]


@pytest.fixture(scope="module")
def chosen():
    """Problems away from kinks and edges, `PER_CASE` of each case, those with most active rows first."""
    with jax.enable_x64(True):
        batch = random_rows_batch(400, N, M, seed=2)
        sol = quick_jit(jax.vmap(lambda *args: outputs(args)[1]))(*batch)
        g, b, c, h, delta, _ = batch
        s = jnp.einsum("kmn,kmn->km", b, jnp.linalg.solve(h, jnp.swapaxes(b, 1, 2)).swapaxes(1, 2))
        reach = jnp.sqrt(2 * delta[:, None] * s)
        slack = jnp.abs(c + jnp.einsum("kmn,kn->km", b, sol.step)) / reach
        # ν_j in units of the step: how far the row pushes it.
        push = sol.nu * jnp.sqrt(s) / jnp.sqrt(jnp.sum(g * jnp.linalg.solve(h, g[..., None])[..., 0], -1))[:, None]
        clear = jnp.all(jnp.where(sol.active, jnp.where((sol.case == 0)[:, None], slack, push), slack) > 1e-2, axis=1)
        clear = clear & ~sol.derivative_clipped & (jnp.max(push, axis=1) < 1e2)
        score = jnp.where(clear, jnp.sum(sol.active, 1), -1)
        index = []
        for case in range(4):
            ranked = jnp.argsort(jnp.where(sol.case == case, score, -1), descending=True)[:PER_CASE]
            assert jnp.all(score[ranked] >= 0), case
            index.append(ranked)
        return jax.tree.map(lambda a: a[jnp.concatenate(index)], batch)


@pytest.fixture(scope="module")
def jacobians(chosen):
    with jax.enable_x64(True):
        reverse, forward = (quick_jit(jax.vmap(mode(vector, range(6))))(*chosen) for mode in (jax.jacrev, jax.jacfwd))
        return reverse, forward, central_differences(vector, chosen)


def central_differences(function, args, width=1e-6):
    """∂function/∂args as `jax.jacrev` orders it."""
    unravel = jax.vmap(jax.flatten_util.ravel_pytree(jax.tree.map(lambda a: a[0], args))[1])
    flat = jax.vmap(lambda *a: jax.flatten_util.ravel_pytree(a)[0])(*args)
    size = flat.shape[1]
    shifted = flat[:, None] + width * jnp.concatenate([jnp.eye(size), -jnp.eye(size)])
    values = quick_jit(jax.vmap(function))(*unravel(shifted.reshape(-1, size)))
    up, down = jnp.split(values.reshape(len(flat), 2 * size, -1), 2, axis=1)
    return jax.vmap(unravel)(jnp.swapaxes((up - down) / (2 * width), 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("argument", range(6), ids=NAMES)
def test_derivative_equals_finite_differences(jacobians, case, argument):
    rows = slice(PER_CASE * case, PER_CASE * (case + 1))
    reverse, forward, differences = (np.asarray(j[argument][rows]) for j in jacobians)
    assert reverse.shape[0] == PER_CASE
    scale = np.max(np.abs(differences), axis=tuple(range(1, differences.ndim)), keepdims=True)
    np.testing.assert_allclose(reverse / (scale + 1e-3), differences / (scale + 1e-3), rtol=0, atol=1e-5)
    np.testing.assert_allclose(forward / (scale + 1e-3), reverse / (scale + 1e-3), rtol=0, atol=1e-8)
    independent = {Case.INFEASIBLE: (0,), Case.SLACK: (1, 2, 5)}.get(Case(case), (5,))
    assert np.all(scale == 0) if argument in independent else np.all(scale > 0)


@pytest.fixture(scope="module")
def directions(chosen):
    """wᵀx is what is differentiated: w [problems, n], for the feasible ones. (w, (g, b, c, L, δ))"""
    g, b, c, h, delta, _ = (np.asarray(a[PER_CASE:]) for a in chosen)
    return np.random.default_rng(0).normal(size=g.shape), (g, b, c, np.linalg.cholesky(h), delta)


@pytest.fixture(scope="module")
def theirs(directions):
    """The gradient of wᵀx by a differentiated cone program, problem by problem."""
    w, args = directions
    return [differentiated.gradient(w[i], *(a[i] for a in args)) for i in range(len(w))]


def test_derivative_equals_that_of_a_differentiated_cone_program(x64, directions, theirs):
    """diffcp differentiates the residual map of the cone program: no formula in common."""
    w, args = directions

    def along(w, g, b, c, lower, delta):
        return w @ solve(problem_rows(g, b, c, lower @ lower.T, delta), cg=EXACT_MANY).step

    ours = quick_jit(jax.vmap(jax.grad(along, range(1, 6))))(*map(jnp.asarray, (w, *args)))
    for i, other_gradient in enumerate(theirs):
        for name, one, other in zip(NAMES[:5], ours, other_gradient, strict=True):
            one = np.tril(one[i]) if name == "h" else np.asarray(one[i])
            scale = np.max(np.abs(other)) + 1e-3
            np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=1e-8, err_msg=f"{name}, problem {i}")


def test_the_differentiated_cone_program_equals_its_own_differences(directions, theirs):
    """What ours is held against, held against differences of Clarabel's polished solution, ours left out."""
    (w, args), rng, width = directions, np.random.default_rng(1), 1e-5
    for i, gradient in enumerate(theirs):
        at = [a[i] for a in args]
        for part, name in enumerate(NAMES[:5]):
            move = rng.normal(size=at[part].shape) * np.abs(at[part])  # in proportion, so that L stays triangular
            up, down = (
                differentiated.solution(*at[:part], at[part] + sign * width * move, *at[part + 1 :])[0]
                for sign in (1, -1)
            )
            difference = w[i] @ (up - down) / (2 * width)
            scale = np.sum(np.abs(gradient[part] * move)) + 1e-3
            assert abs(np.sum(gradient[part] * move) - difference) < 1e-6 * scale, (name, i)


def unrolled(h, v):
    """h⁻¹v by N iterations of textbook conjugate gradients, differentiated through their arithmetic."""
    y, r, p = jnp.zeros_like(v), v, v
    for _ in range(N):
        hp = h @ p
        alpha = (r @ r) / (p @ hp)
        y, r_new = y + alpha * p, r - alpha * hp
        p, r = r_new + (r_new @ r_new) / (r @ r) * p, r_new
    return y


def solved_by_iterations(g, b, c, h, delta, weight):
    """H⁻¹ of all rows for `solve`, through the iterations."""
    rows, h = jnp.concatenate([g[None], b]), (h + h.T) / 2
    y = jax.vmap(lambda v: unrolled(h, v))(rows)
    hy = jax.lax.stop_gradient(y @ h)
    return Solved(rows, y, hy, jnp.full(M + 1, N, jnp.int32), jnp.ones(M + 1, bool))


@pytest.mark.slow
def test_the_implicit_derivative_is_that_of_the_iterations(x64, chosen):
    """n iterations are exact, and then both are."""

    def gradient(solved, *args):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(3 * outputs(a, solved(*a))[0])), range(6))(*args)

    ways = lambda *args: None, solved_by_iterations
    implicit, through = (quick_jit(jax.vmap(partial(gradient, solved)))(*chosen) for solved in ways)
    for one, other in zip(implicit, through, strict=True):
        scale = np.max(np.abs(one), axis=tuple(range(1, one.ndim)), keepdims=True) + 1e-3
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=1e-6)
    assert all(np.any(one) for one in implicit)


@pytest.mark.slow
def test_second_derivatives_equal_differences_of_the_first(x64, chosen):
    def loss(*args):
        return jnp.sum(jnp.sin(3 * outputs(args)[0]))

    gradient = jax.grad(loss, range(6))

    def both(*args):
        ones = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), args)
        up, down = (gradient(*jax.tree.map(lambda a, o, s=s: a + s * o, args, ones)) for s in (1e-6, -1e-6))
        exact = jax.jvp(gradient, args, ones)[1]
        reverse = jax.grad(lambda *a: sum(jnp.sum(x * o) for x, o in zip(gradient(*a), ones, strict=True)), range(6))
        return exact, reverse(*args), jax.tree.map(lambda a, b: (a - b) / 2e-6, up, down)

    exact, reverse, differences = quick_jit(jax.vmap(both))(*chosen)
    scale = np.max(np.concatenate([np.abs(d).reshape(len(d), -1) for d in differences], 1), axis=1)
    for one, other, difference in zip(exact, reverse, differences, strict=True):
        k = scale.reshape(-1, *[1] * (one.ndim - 1))
        np.testing.assert_allclose(one / k, difference / k, rtol=0, atol=1e-5)
        np.testing.assert_allclose(other / k, one / k, rtol=0, atol=1e-7)
