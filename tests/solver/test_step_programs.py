"""What the compiled programs contain: no factorisation, no n × n array; and how good their numbers are."""

from functools import partial

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.policies import GaussianPolicy
from metacpo.solver import Case, CGSettings, Implicit, Problem, Unrolled, diagonal, jacobi, solve

from .problems import dense, oracle_rows, problem_rows, random_rows_batch

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


def gradient_of_step(adjoint, cg):
    def loss(g, b, c, scale, delta):
        structure = jax.ShapeDtypeStruct(g.shape, g.dtype)
        metric = lx.FunctionLinearOperator(lambda v: scale * v + jnp.mean(v), structure, lx.positive_semidefinite_tag)
        return jnp.sum(solve(Problem(g, b, c, metric, delta), cg=cg, adjoint=adjoint).step ** 2)

    return jax.grad(loss, range(5))


@pytest.mark.parametrize("m", [2, 8])
@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled()], ids=str)
def test_no_batched_factorisation_is_used_for_many_rows(m, adjoint):
    shapes = [(3, 6), (3, m, 6), (3, m), (3, 6), (3,)]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    jaxpr = jax.make_jaxpr(jax.vmap(gradient_of_step(adjoint, CGSettings(max_steps=3))))(*args).jaxpr
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
    gradient = gradient_of_step(Implicit(), CGSettings(max_steps=10))
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


def ill_conditioned(n=120, m=3, seed=0):
    """(problem arrays, κ): H = diag of a spectrum from 0.05 to 5, rotated."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    h = Q * np.geomspace(0.05, 5, n) @ Q.T
    b = rng.normal(size=(m, n))
    g = -rng.normal(size=n) - 0.4 * b.sum(0)
    delta = 0.5
    reach = np.sqrt(2 * delta * np.sum(b * np.linalg.solve(h, b.T).T, axis=1))
    return g, b, h, delta, reach


@pytest.mark.parametrize("violated", [-0.2, 1.4])
def test_error_bound_holds_and_is_not_empty(x64, violated):
    """Against the exact solution, from three iterations to convergence; feasible and infeasible."""
    g, b, h, delta, reach = ill_conditioned()
    c, weight = violated * reach * np.array([1.0, 0.5, 0.8]), np.array([1.0, 3.0, 0.5])
    exact, feasible = oracle_rows(g, b, c, h, delta, weight)
    args = tuple(map(jnp.asarray, (g, b, c, h, np.float64(delta), weight)))
    bounds = []
    for steps in (3, 12, 160):
        cg = CGSettings(rtol=0.0, max_steps=steps, smallest_eigenvalue=0.05)
        sol = quick_jit(lambda cg=cg: solve(problem_rows(*args), cg=cg))()
        assert (sol.case == Case.INFEASIBLE) == (not feasible)
        difference = np.asarray(sol.step) - exact
        error = np.sqrt(difference @ h @ difference / (2 * delta))
        assert error <= sol.stats.error + 1e-12, steps
        bounds.append((error, float(sol.stats.error)))
    assert bounds[-1][1] < 1e-6  # it goes to 0 with the residual
    assert bounds[1][1] < 100 * bounds[1][0], bounds  # and says something on the way


def test_errors_are_infinite_where_nothing_is_known(x64):
    g, b, h, delta, reach = ill_conditioned()
    args = tuple(map(jnp.asarray, (g, b, -0.2 * reach, h, np.float64(delta), np.ones(3))))
    stats = quick_jit(lambda: solve(problem_rows(*args), cg=CGSettings(max_steps=5)).stats)()
    assert jnp.isinf(stats.error) and jnp.isinf(stats.gradient_error)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("violated", [-2.0, -0.2, 0.3, 1.4], ids=["slack", "binding", "recovering", "infeasible"])
def test_gradient_error_is_of_the_size_of_the_gradient_s_error(x64, violated, m):
    """From three iterations to convergence; ∂(wᵀx)/∂(g, b_1) in the norm of H against a converged one."""
    g, b, h, delta, reach = ill_conditioned(m=m)
    c = jnp.asarray(violated * reach * np.array([1.0, 0.5, 0.8])[:m])
    g, b, h, w = map(jnp.asarray, (g, b, h, np.cos(np.arange(120.0))))

    def error(steps):
        cg = CGSettings(rtol=0.0, max_steps=steps, smallest_eigenvalue=0.05)

        def along(g, b):
            sol = solve(problem_rows(g, b, c, h, jnp.asarray(delta), jnp.ones(m)), cg=cg)
            return w @ sol.step, sol

        (by_g, by_b), sol = quick_jit(jax.grad(along, (0, 1), has_aux=True))(g, b)
        return jnp.stack([by_g, by_b[0]]), sol

    exact, sol = error(400)
    assert sol.stats.gradient_error < 1e-6 and sol.case == {-2.0: 3, -0.2: 2, 0.3: 1, 1.4: 0}[violated]
    for steps in (3, 12, 40):
        gradient, sol = error(steps)
        off = gradient - exact
        relative = jnp.sqrt(jnp.sum(off * (off @ h)) / jnp.sum(exact * (exact @ h)))
        assert relative <= sol.stats.gradient_error <= 1000 * relative, steps


def test_a_diagonal_preconditioner_saves_iterations_on_a_diagonal_scale(x64):
    """H = D(I + low rank)D with D over three decades: Jacobi undoes D. Same step, far fewer iterations."""
    g, b, *_ = ill_conditioned()
    rng = np.random.default_rng(1)
    D, low = np.geomspace(0.05, 50, 120), rng.normal(size=(120, 3)) / 10
    h = jnp.asarray(D[:, None] * (np.eye(120) + low @ low.T) * D)
    metric = dense(h)
    np.testing.assert_allclose(diagonal(dense(jnp.diag(D)), jax.random.key(0), 1, 1e-6), D)  # exact for a diagonal H
    np.testing.assert_allclose(diagonal(metric, jax.random.key(0), 4000, 1e-6)[60:], jnp.diagonal(h)[60:], rtol=0.2)
    p = Problem(jnp.asarray(g), jnp.asarray(b), -jnp.ones(3), metric, jnp.asarray(0.5))
    cg = CGSettings(rtol=1e-10, max_steps=2000)
    plain, preconditioned = (
        quick_jit(lambda M=M: solve(p, cg=cg, preconditioner=M))() for M in (None, jacobi(jnp.diagonal(h)))
    )
    np.testing.assert_allclose(preconditioned.step, plain.step, rtol=0, atol=1e-7 * float(jnp.max(jnp.abs(plain.step))))
    assert 5 * jnp.max(preconditioned.stats.iterations) < jnp.max(plain.stats.iterations)
    assert preconditioned.stats.residuals.shape == (4,) and jnp.max(preconditioned.stats.residuals) < 1e-9


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
