"""What the compiled programs contain: no factorisation, no n × n array; and how good their numbers are."""

from functools import partial

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.policies import GaussianPolicy
from metacpo.solver import CGSettings, Problem, solve

from .problems import problem_rows, random_rows_batch

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
FORBIDDEN = {"cholesky", "lu", "eigh", "eig", "svd", "qr", "geqrf", "householder_product", "triangular_solve", "schur"}


def equations(jaxpr):
    """All equations, those of nested programs too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def largest_array(jaxpr):
    return max(np.prod(v.aval.shape, dtype=float) for eqn in equations(jaxpr) for v in eqn.outvars)


def gradient_of_step(cg):
    def loss(g, b, c, scale, delta):
        structure = jax.ShapeDtypeStruct(g.shape, g.dtype)
        metric = lx.FunctionLinearOperator(lambda v: scale * v + jnp.mean(v), structure, lx.positive_semidefinite_tag)
        return jnp.sum(solve(Problem(g, b, c, metric, delta), cg=cg).step ** 2)

    return jax.grad(loss, range(5))


@pytest.mark.parametrize("m", [2, 8])
def test_no_batched_factorisation_is_used_for_many_rows(m):
    shapes = [(3, 6), (3, m, 6), (3, m), (3, 6), (3,)]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    jaxpr = jax.make_jaxpr(jax.vmap(gradient_of_step(CGSettings(max_steps=3))))(*args).jaxpr
    names = {eqn.primitive.name for eqn in equations(jaxpr)}
    assert "while" in names and not names & FORBIDDEN, names & FORBIDDEN


def test_the_walk_sees_a_factorisation():
    jaxpr = jax.make_jaxpr(lambda a: jax.lax.fori_loop(0, 3, lambda _, x: jnp.linalg.inv(x), a))(jnp.eye(3)).jaxpr
    assert {eqn.primitive.name for eqn in equations(jaxpr)} & FORBIDDEN


@pytest.mark.parametrize("m", [0, 1, 4, 16])
def test_no_array_of_n_times_n_exists_at_a_million(m):
    """Forward, backward and the derivative of that: nothing above a few times (m + 1) n numbers."""
    n = 10**6
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n,), (m, n), (m,), (n,), ())]
    gradient = gradient_of_step(CGSettings(max_steps=10))
    for function in (gradient, lambda *a: jax.jvp(gradient, a, a)):
        assert largest_array(jax.make_jaxpr(function)(*args).jaxpr) <= 4 * (m + 2) * n


def test_no_array_of_n_times_n_exists_for_a_policy_of_a_million():
    """The Fisher operator of a real policy at n ≈ 1e6, 64 states: arrays of (m + 2) n and of states × layers."""
    policy, m = GaussianPolicy(observation_size=60, action_size=8, hidden=(960, 960), initial_std=0.5), 2
    n = policy.size
    assert n > 9e5

    def loss(phi, z, g, b, c, delta):
        metric = policy.fisher(phi, z, jnp.ones(z.shape[0]), 0.1)
        return jnp.sum(solve(Problem(g, b, c, metric, delta), cg=CGSettings(max_steps=10)).step ** 2)

    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n,), (64, 60), (n,), (m, n), (m,), ())]
    jaxpr = jax.make_jaxpr(jax.grad(loss, range(6)))(*args).jaxpr
    assert largest_array(jaxpr) <= 4 * (m + 2) * n


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [3e-3])
def test_float32_steps_are_those_of_float64(x64, tolerance):
    """Relative to the region's size, over all cases away from a change of case."""
    batch = random_rows_batch(200, 20, 4, seed=1)
    run = quick_jit(jax.vmap(lambda *a: solve(problem_rows(*a), cg=CGSettings(rtol=1e-6, max_steps=60))))
    double, single = run(*batch), run(*(a.astype(jnp.float32) for a in batch))
    same = np.asarray(double.case == single.case)
    assert np.mean(same) > 0.98 and np.all(single.stats.converged)
    error = np.linalg.norm(single.step.astype(np.float64) - double.step, axis=1) / np.linalg.norm(double.step, axis=1)
    clear = same & ~np.asarray(double.derivative_clipped)
    assert np.median(error[clear]) < 1e-5 and np.max(error[clear]) < tolerance, np.sort(error[clear])[-5:]
