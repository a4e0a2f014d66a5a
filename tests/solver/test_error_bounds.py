"""The bounds of the step's error and of its derivative's, against exact solutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import Case, CGSettings, solve

from .problems import oracle_rows, problem_rows

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


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


@pytest.mark.slow
@pytest.mark.parametrize("violated", [-0.2, pytest.param(1.4, marks=pytest.mark.slow)])
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


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "violated",
    [
        pytest.param(-2.0, marks=pytest.mark.slow, id="slack"),
        pytest.param(-0.2, id="binding"),
        pytest.param(0.3, marks=pytest.mark.slow, id="recovering"),
        pytest.param(1.4, marks=pytest.mark.slow, id="infeasible"),
    ],
)
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
