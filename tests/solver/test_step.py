"""The step against an independent solver, hand-computed numbers and its own optimality conditions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.solver import Case, CGSettings, Problem
from metacpo.solver import solve as eager_solve

from .problems import EXACT, EXACT_MANY, dense, oracle, problem, problem_rows, random_batch, random_rows_batch

solve = eqx.filter_jit(eager_solve)
QUICK = {"xla_backend_optimization_level": 0}  # compiled for a moment's use


@eqx.filter_jit
def solve_batch(g, b, c, h, delta, cg=EXACT):
    return jax.vmap(lambda *args: solve(problem(*args), cg=cg))(g, b, c, h, delta)


def test_step_equals_an_interior_point_solver_on_1000_problems(x64):
    batch = random_batch()
    sol = jax.tree.map(np.asarray, solve_batch(*batch))
    g, b, c, h, delta = map(np.asarray, batch)

    assert all(np.sum(sol.case == case) >= 50 for case in range(4)), np.bincount(sol.case)
    assert not np.any(sol.case == Case.INVALID)
    errors = []
    for i in range(1000):
        x, feasible = oracle(g[i], b[i], c[i], h[i], delta[i])
        step = sol.step[i]
        assert feasible == (sol.case[i] != Case.INFEASIBLE)
        size = np.sqrt(2 * delta[i])
        cost = g[i] if feasible else b[i]
        assert abs(cost @ (step - x)) <= 1e-6 * np.linalg.norm(cost) * size
        assert 0.5 * step @ h[i] @ step <= delta[i] * (1 + 1e-9)
        if feasible:
            assert c[i] + b[i] @ step <= 1e-9 * max(1, abs(c[i]))
        errors.append(np.max(np.abs(step - x)) / np.linalg.norm(step))
    assert np.max(errors) <= 1e-6


def test_multipliers_satisfy_the_optimality_conditions(x64):
    g, b, c, h, delta = random_batch()
    sol = solve_batch(g, b, c, h, delta)
    objective_weight = jnp.where(sol.case == Case.INFEASIBLE, 0.0, 1.0)[:, None]
    hx = jnp.einsum("kij,kj->ki", h, sol.step)
    stationarity = objective_weight * g + sol.nu * b + sol.lam[:, None] * hx
    np.testing.assert_allclose(stationarity, 0, atol=1e-8)
    assert jnp.all(sol.lam >= 0) and jnp.all(sol.nu >= 0)
    feasible = sol.case != Case.INFEASIBLE
    slackness = sol.nu[:, 0] * (c + jnp.sum(b * sol.step, 1))
    np.testing.assert_allclose(jnp.where(feasible, slackness, 0), 0, atol=1e-8)
    np.testing.assert_allclose(0.5 * jnp.sum(sol.step * hx, 1), delta, rtol=1e-9)


def test_hand_computed_step_catches_the_sign_error_of_the_dual(x64):
    """H = I, g = (1, 0), b = (1, −1), c = −0.05, 2δ = 1: every number by hand.

    The slack step (−1, 0) has c + bᵀx = −1.05, so the constraint is slack.
    With b = (−1, 1) that step has c + bᵀx = 0.95, so the constraint binds: q = 1, r = −1, s = 2,
    A = 1 − ½ = ½, B = 1 − 0.0025/2 = 0.99875, λ = √(A/B), ν = (−0.05λ + 1)/2.
    """
    g, c, delta = jnp.array([1.0, 0.0]), jnp.array([-0.05]), jnp.array(0.5)
    slack = solve(Problem(g, jnp.array([[1.0, -1.0]]), c, None, delta))
    assert slack.case == Case.SLACK
    np.testing.assert_allclose(slack.step, [-1.0, 0.0], atol=1e-12)

    sol = solve(Problem(g, jnp.array([[-1.0, 1.0]]), c, None, delta))
    lam = np.sqrt(0.5 / 0.99875)
    x1 = -0.025 - np.sqrt(0.99875 / 2)  # On the line x₂ = x₁ + 0.05 and on the unit circle.
    assert sol.case == Case.BINDING
    np.testing.assert_allclose(sol.lam, lam, rtol=1e-12)
    np.testing.assert_allclose(sol.nu, [(1 - 0.05 * lam) / 2], rtol=1e-12)
    np.testing.assert_allclose(sol.step, [x1, x1 + 0.05], rtol=1e-12)
    np.testing.assert_allclose(x1, -0.7316647, atol=1e-7)

    # The mixed convention ν = max(0, (λc + r)/s) would drop the constraint and violate it.
    wrong_nu = max(0.0, (lam * -0.05 - 1) / 2)
    wrong_step = -(np.array([1.0, 0.0]) + wrong_nu * np.array([-1.0, 1.0])) / lam
    assert -0.05 + np.array([-1.0, 1.0]) @ wrong_step > 0.5


def test_recovery_step_lowers_the_constraint_as_far_as_the_region_allows(x64):
    sol = solve(Problem(jnp.array([1.0, 0.0]), jnp.array([[0.0, 2.0]]), jnp.array([5.0]), None, jnp.array(0.5)))
    assert sol.case == Case.INFEASIBLE
    np.testing.assert_allclose(sol.step, [0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(sol.nu, [0.75])  # s = 4, c + bᵀx = 3
    np.testing.assert_allclose(sol.lam, 1.5)  # νb + λx = 0


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 3])
def test_multipliers_of_infeasible_problems_are_those_of_the_violation(x64, m):
    """ν_j = w_j(c_j + b_jᵀx)₊/s_j and Σ ν_j b_j + λHx = 0, whatever m is, and λ is ∂/∂δ of what is minimised."""
    g, b, c, h, delta, weight = random_rows_batch(300, 6, m, seed=3)
    run = jax.jit(jax.vmap(lambda *args: eager_solve(problem_rows(*args), cg=EXACT_MANY)), compiler_options=QUICK)
    sol = run(g, b, c, h, delta, weight)
    chosen = (sol.case == Case.INFEASIBLE) & ~sol.derivative_clipped
    assert np.sum(chosen) >= 5
    g, b, c, h, delta, weight = (a[chosen] for a in (g, b, c, h, delta, weight))
    sol = jax.tree.map(lambda a: a[chosen], sol)
    s = jnp.einsum("kmn,knm->km", b, jnp.linalg.solve(h, jnp.swapaxes(b, 1, 2)))
    violation = jnp.maximum(c + jnp.einsum("kmn,kn->km", b, sol.step), 0)
    largest = jnp.max(sol.nu, axis=1, keepdims=True)
    np.testing.assert_allclose(sol.nu / largest, weight * violation / s / largest, rtol=0, atol=1e-8)
    pull = jnp.einsum("km,kmn->kn", sol.nu, b)
    size = jnp.max(jnp.abs(pull), axis=1, keepdims=True)
    hx = jnp.einsum("kij,kj->ki", h, sol.step)
    np.testing.assert_allclose(pull / size, -sol.lam[:, None] * hx / size, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(sol.nu > 0, sol.active)


def test_a_violation_beyond_the_numbers_of_the_type_leaves_step_and_multipliers_finite():
    """c/max|b_i| is infinite in float32, and the step is that of a smaller c."""

    def along(g, b, c):
        sol = eager_solve(Problem(g, b[None], c[None], None, 0.5))
        return jnp.sum(jnp.cos(sol.step)) + 1e-38 * (sol.lam + sol.nu[0]), sol

    g, b = jnp.array([1.0, 0.0]), jnp.array([0.0, 1e-12])
    (_, huge), slopes = jax.value_and_grad(along, (0, 1, 2), has_aux=True)(g, b, jnp.float32(1e30))
    (_, large), _ = jax.value_and_grad(along, (0, 1, 2), has_aux=True)(g, b, jnp.float32(1.0))
    assert huge.case == large.case == Case.INFEASIBLE
    np.testing.assert_array_equal(huge.step, large.step)
    assert all(np.all(np.isfinite(a)) for a in (huge.lam, huge.nu, *slopes))


def test_no_metric_is_the_identity(x64):
    g, b, c, _, delta = random_batch(1)
    n = g.shape[1]
    euclidean = solve(problem(g[0], b[0], c[0], None, delta[0]))
    identity = lx.IdentityLinearOperator(jax.ShapeDtypeStruct((n,), g.dtype))
    with_identity = solve(Problem(g[0], b, c, identity, delta[0]))
    np.testing.assert_allclose(with_identity.step, euclidean.step, rtol=1e-12)
    assert euclidean.residual == 0
    assert with_identity.case == euclidean.case


def test_without_constraints_it_is_the_trust_region_step(x64):
    g, _, _, h, delta = (a[0] for a in random_batch(1))
    n = g.shape[0]
    sol = solve(Problem(g, jnp.zeros((0, n)), jnp.zeros(0), dense(h), delta), cg=EXACT)
    inverse_g = np.linalg.solve(h, g)
    np.testing.assert_allclose(sol.step, -np.sqrt(2 * delta / (g @ inverse_g)) * inverse_g, rtol=1e-9)
    assert sol.case == Case.UNCONSTRAINED
    assert sol.nu.shape == (0,)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_scaling_objective_or_constraint_changes_multipliers_only(x64, dtype):
    g, b, c, h, delta = (a.astype(dtype) for a in random_batch())
    tol = 1e-3 if dtype == jnp.float32 else 1e-9
    sol = solve_batch(g, b, c, h, delta)
    scaled = solve_batch(g * 1e-18, b * 1e15, c * 1e15, h, delta)
    assert scaled.step.dtype == scaled.lam.dtype == scaled.nu.dtype == scaled.residual.dtype == dtype
    np.testing.assert_allclose(scaled.step, sol.step, atol=tol)
    feasible = sol.case != Case.INFEASIBLE
    np.testing.assert_allclose((scaled.lam * 1e18)[feasible], sol.lam[feasible], rtol=tol, atol=tol)
    np.testing.assert_array_equal(scaled.case, sol.case)


def test_vmap_equals_loop(x64):
    # Not to the tolerance of rounding, where it is chance whether one more iteration is needed.
    cg = CGSettings(rtol=1e-10, max_steps=60)
    batch = random_batch()
    batched = solve_batch(*batch, cg=cg)
    for i in range(4):
        single = solve(problem(*(a[i] for a in batch)), cg=cg)
        for one, many in zip(jax.tree.leaves(single), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(one, many[i], rtol=1e-9, atol=1e-12)


def test_jit_equals_eager(x64):
    g, b, c, _, delta = (a[0] for a in random_batch(1))
    eager, compiled = (run(problem(g, b, c, None, delta)) for run in (eager_solve, solve))
    for one, other in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def _ill_conditioned(n=200):
    rng = np.random.default_rng(3)
    spectrum = jnp.asarray(np.geomspace(0.01, 10, n), jnp.float32)
    g, b = (jnp.asarray(rng.normal(size=n), jnp.float32) for _ in range(2))
    operator = lx.DiagonalLinearOperator(spectrum)
    return g, b, spectrum, lx.TaggedLinearOperator(operator, lx.positive_semidefinite_tag)


@pytest.mark.parametrize("max_steps", [1, 10])
def test_conjugate_gradients_stopped_early_leave_a_usable_step(max_steps):
    g, b, spectrum, metric = _ill_conditioned()
    rng = np.random.default_rng(0)
    # From b almost along −g to b almost along g, c on both sides of 0.
    b = b + jnp.asarray(rng.uniform(-5, 2, size=(400, 1)), jnp.float32) * g
    c, delta = jnp.asarray(rng.uniform(-1.5, 1.5, size=400), jnp.float32), jnp.float32(0.01)
    cg = CGSettings(rtol=0.0, max_steps=max_steps)
    run = jax.vmap(lambda b, c: eager_solve(Problem(g, b[None], c[None], metric, delta), cg=cg))
    sol = jax.jit(run)(b, c)

    binding = (sol.case == Case.BINDING) | (sol.case == Case.RECOVERING)
    assert binding.sum() > 100 and jnp.all(sol.residual > 0.01)
    size = 0.5 * jnp.sum(sol.step * spectrum * sol.step, 1) / delta
    assert jnp.all(size <= 1.0001)
    assert jnp.min(size) > 0.7 and jnp.median(size) > 0.95
    # Shortening is what may leave a part of a violation: never much of it.
    left = ((c + jnp.sum(b * sol.step, 1)) / jnp.abs(c))[binding]
    assert jnp.max(left) < 0.15 and jnp.median(left) < 0.02


def test_residual_is_the_one_computed_from_the_definition():
    g, b, spectrum, metric = _ill_conditioned()
    sol = solve(Problem(g, b[None], jnp.float32([-1.0]), metric, 0.01), cg=CGSettings(rtol=0.0, max_steps=4))

    def independent(v):
        """Conjugate gradients in the textbook form, float64, without preconditioner."""
        v, h = np.asarray(v, np.float64), np.asarray(spectrum, np.float64)
        y, r = np.zeros_like(v), v
        p = r
        for _ in range(4):
            alpha = (r @ r) / (p @ (h * p))
            y, r_new = y + alpha * p, r - alpha * h * p
            p, r = r_new + (r_new @ r_new) / (r @ r) * p, r_new
        return np.linalg.norm(v - h * y) / np.linalg.norm(v)

    np.testing.assert_allclose(sol.residual, max(independent(g), independent(b)), rtol=1e-3)


def test_small_metric_in_float32_with_many_variables():
    """lineax.CG 0.1.1 answers NaN here."""
    n = 1500
    spectrum = jnp.linspace(0.01, 0.02, n)
    metric = lx.TaggedLinearOperator(lx.DiagonalLinearOperator(spectrum), lx.positive_semidefinite_tag)
    g = jnp.ones(n).at[:3].set(0.0)
    sol = solve(Problem(g, jnp.zeros((0, n)), jnp.zeros(0), metric, 0.01))
    assert sol.case == Case.UNCONSTRAINED and sol.residual < 1e-5
    direction = g / spectrum
    np.testing.assert_allclose(sol.step, -jnp.sqrt(0.02 / (g @ direction)) * direction, rtol=1e-4)


def test_no_batched_factorisation_is_used(x64):
    def loss(*args):
        return solve(problem(*args)).step.sum()

    text = str(jax.make_jaxpr(jax.vmap(jax.grad(loss)))(*random_batch(2)))
    assert "while" in text
    for name in ("cholesky", " lu", "eigh", "qr", "svd", "triangular_solve"):
        assert f"{name}[" not in text
