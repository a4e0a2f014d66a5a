"""Conjugate gradients on what is no metric, and inside shard_map."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from metacpo.algorithms.steps import CPOStep, KLPenalisedStep, Linearised, NaturalGradientStep, PCPOStep, TRPOStep
from metacpo.solver import Case, CGSettings, Problem, Solved, solve

from .problems import dense, random_batch

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
INDEFINITE = np.diag([1.0, 1.0, -1.0, 1.0, 1.0]).astype(np.float32)


def rows(m, n=5, seed=0):
    """g [n], b [m, n] and c [m], all a little violated."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=n), rng.normal(size=(m, n)), np.full(m, 0.01)
    return tuple(jnp.asarray(x, jnp.float32) for x in numbers)


@pytest.mark.parametrize("m", [0, 1, 4])
def test_a_metric_with_a_negative_eigenvalue_is_invalid(m):
    g, b, c = rows(m)
    cg = CGSettings(max_steps=8)
    fun = quick_jit(lambda h: solve(Problem(g, b, c, dense(h), 0.01), cg=cg))
    solution = fun(jnp.asarray(INDEFINITE))
    assert solution.case == Case.INVALID and solution.residual == 1
    np.testing.assert_array_equal(solution.step, 0)
    assert fun(jnp.eye(5)).case != Case.INVALID


def test_it_is_invalid_where_every_square_in_the_inverse_is_positive():
    """vᵀH⁻¹v > 0 for g and b: only the curvature along a search direction tells."""
    g, b = np.random.default_rng(1).normal(size=(2, 100, 5)).astype(np.float32)
    squares = np.stack([np.einsum("ki,ij,kj->k", v, np.linalg.inv(INDEFINITE), v) for v in (g, b)])
    c = np.full(1, 0.01, np.float32)
    run = quick_jit(jax.vmap(lambda g, b: solve(Problem(g, b[None], c, INDEFINITE, 0.01)).case))
    assert np.sum(np.all(squares > 0, axis=0)) > 20
    np.testing.assert_array_equal(run(g, b), Case.INVALID)


def test_a_singular_metric_is_invalid_where_the_search_meets_its_null_space():
    h = jnp.diag(jnp.array([1.0, 0.0]))
    run = quick_jit(lambda g: solve(Problem(g, jnp.zeros((0, 2)), jnp.zeros(0), h, 0.01)).case)
    assert run(jnp.array([0.0, 1.0])) == Case.INVALID and run(jnp.array([1.0, 0.0])) == Case.UNCONSTRAINED


@pytest.mark.parametrize("move", [CPOStep(), TRPOStep(), PCPOStep(), KLPenalisedStep(), NaturalGradientStep()], ids=str)
def test_every_move_refuses_it(move):
    g, b, c = rows(1)
    H = dense(jnp.asarray(INDEFINITE))

    def propose():
        solved = Solved.of(H, jnp.concatenate([g[None], b]), CGSettings())
        combined = solved.combined(jnp.array([[1.0, 0.5], [0.0, 1.0]]))
        return [move(Linearised(rows, c, H, jnp.float32(0.01), jnp.float32(1.0))) for rows in (solved, combined)]

    for proposal in quick_jit(propose)():
        assert proposal.case == Case.INVALID
        np.testing.assert_array_equal(proposal.step, 0)


def test_positive_definite_problems_are_none_of_them(x64):
    """Also where conjugate gradients go on long after they have converged."""
    g, b, c, h, delta = random_batch(300)
    cg = CGSettings(rtol=1e-15, max_steps=300)
    run = quick_jit(jax.vmap(lambda g, b, c, h, d: solve(Problem(g, b[None], c[None], h, d), cg=cg).case))
    assert not np.any(run(g, b, c, h, delta) == Case.INVALID)


def test_the_derivative_of_an_invalid_step_is_zero():
    g, b, c = rows(1)

    def total(g):
        return jnp.sum(solve(Problem(g, b, c, INDEFINITE, 0.01)).step)

    np.testing.assert_array_equal(quick_jit(jax.grad(total))(g), 0)


@pytest.mark.parametrize("m", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_inside_shard_map(m):
    g, b, c = rows(m)
    h = jnp.diag(jnp.arange(1.0, 6.0))
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def step(g):
        return solve(Problem(g, b, c, h, 0.01), cg=CGSettings(max_steps=6)).step

    def both(g):
        return step(g), jax.grad(lambda g: jnp.sum(step(g)))(g)

    def sharded(g):
        return tuple(x[None] for x in both(g[0]))

    found = quick_jit(jax.shard_map(sharded, mesh=mesh, in_specs=P("i"), out_specs=P("i")))(g[None])
    for one, other in zip(found, quick_jit(both)(g), strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-4, atol=1e-5)
