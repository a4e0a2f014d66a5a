"""Every move against the program that it solves: by Clarabel, or in closed form with dense matrices."""

from functools import partial

import cvxpy
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

from metacpo.algorithms.steps import (
    CPOStep,
    GradientStep,
    KLPenalisedStep,
    Linearised,
    NaturalGradientStep,
    PCPOStep,
    TRPOStep,
)
from metacpo.solver import Case, CGSettings, Solved

N = 6
CG = CGSettings(rtol=1e-13, max_steps=60)
DELTA = 0.02


class Draw:
    """Random g, b, H (dense, well conditioned) and a c."""

    def __init__(self, seed: int, m: int, c):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(N, N))
        self.H = A @ A.T + 0.5 * np.eye(N)
        self.g, self.b = rng.normal(size=N), rng.normal(size=(m, N))
        self.c = np.broadcast_to(np.asarray(c, float), (m,)).copy()
        self.root = np.linalg.cholesky(self.H).T  # xᵀHx = ‖root·x‖²

    def data(self, scale: float = 1.0) -> Linearised:
        H = lineax.MatrixLinearOperator(jnp.asarray(self.H), lineax.positive_semidefinite_tag)
        solved = Solved.of(H, jnp.concatenate([jnp.asarray(self.g)[None], jnp.asarray(self.b)]), CG)
        return Linearised(solved, jnp.asarray(self.c), H, jnp.asarray(DELTA), jnp.asarray(scale))

    def minimise(self, objective, constraints=()):
        """The minimiser of objective(x) under constraints(x), each a function of the variable."""
        x = cvxpy.Variable(N)
        problem = cvxpy.Problem(cvxpy.Minimize(objective(x)), [constraint(x) for constraint in constraints])
        problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-8, tol_gap_rel=1e-8, tol_feas=1e-8)
        return x.value


def length(draw: Draw, x) -> float:
    return 0.5 * float(x @ draw.H @ x)


@pytest.mark.parametrize("c", [-10.0, -0.05, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_the_projected_step_is_the_nearest_feasible_point_to_trpos(x64, seed, c):
    draw = Draw(seed, 1, c)
    found = PCPOStep()(draw.data())
    trpo = draw.minimise(lambda x: draw.g @ x, [lambda x: cvxpy.sum_squares(draw.root @ x) <= 2 * DELTA])
    nearest = draw.minimise(lambda x: cvxpy.sum_squares(draw.root @ (x - trpo)), [lambda x: draw.c + draw.b @ x <= 0])
    np.testing.assert_allclose(found.step, nearest, atol=2e-6)
    moved = np.linalg.norm(nearest - trpo) > 1e-6
    expected = (Case.RECOVERING if c > 0 else Case.BINDING) if moved else Case.SLACK
    assert int(found.case) == expected


@pytest.mark.parametrize("cost_price", [0.0, 0.7])
@pytest.mark.parametrize(("m", "c"), [(0, 0.0), (1, -10.0), (1, -0.02), (1, 0.05), (2, [-0.02, 0.03])])
def test_the_penalised_step_solves_its_program(x64, m, c, cost_price):
    price = 20.0
    draw = Draw(4, m, c)
    found = KLPenalisedStep(price, cost_price, most=1e3, steps=4000)(draw.data())

    def divergence(x):
        return 0.5 * cvxpy.sum_squares(draw.root @ x)

    limits = [lambda x, j=j: draw.c[j] + draw.b[j] @ x + cost_price * divergence(x) <= 0 for j in range(m)]
    expected = draw.minimise(lambda x: draw.g @ x + price * divergence(x), limits)
    np.testing.assert_allclose(found.step, expected, atol=1e-5)


def test_a_multiplier_of_the_penalised_step_has_a_ceiling(x64):
    """No step within reach repairs c: the dual is unbounded, and the step is that of the largest multiplier."""
    draw = Draw(0, 1, 1e6)
    found = KLPenalisedStep(20.0, most=8.0)(draw.data())
    np.testing.assert_allclose(found.step, -np.linalg.solve(draw.H, draw.g + 8 * draw.b[0]) / 20, rtol=1e-8)
    assert int(found.case) == Case.RECOVERING


def test_the_natural_step_of_a_gaussian_is_its_exponential_tilt(x64):
    """π·exp(A/λ) with A = wᵀ(a − mean) is the Gaussian whose mean has moved by Σw/λ: Penalised without constraint.

    For the mean as parameter H = Σ⁻¹ and the loss gradient is −w.
    """
    sigma, w, price = np.array([0.5, 2.0]), np.array([1.0, -0.3]), 5.0
    H = lineax.DiagonalLinearOperator(jnp.asarray(1 / sigma**2))
    H = lineax.TaggedLinearOperator(H, lineax.positive_semidefinite_tag)
    solved = Solved.of(H, jnp.asarray(-w)[None], CG)
    data = Linearised(solved, jnp.zeros(0), H, jnp.asarray(1.0), jnp.asarray(1.0))
    found = KLPenalisedStep(price)(data).step
    grid = np.linspace(-30, 30, 40001)
    for j in range(2):
        tilted = np.exp(-0.5 * (grid / sigma[j]) ** 2 + w[j] * grid / price)
        assert float(found[j]) == pytest.approx(np.sum(grid * tilted) / np.sum(tilted), rel=1e-6)


def test_free_natural_and_descent_steps(x64):
    draw = Draw(1, 1, 0.3)
    y = np.linalg.solve(draw.H, draw.g)
    np.testing.assert_allclose(TRPOStep()(draw.data()).step, -np.sqrt(2 * DELTA / (draw.g @ y)) * y, rtol=1e-8)
    np.testing.assert_allclose(NaturalGradientStep(0.2)(draw.data(1.5)).step, -0.3 * y, rtol=1e-8)
    np.testing.assert_allclose(GradientStep(0.2)(draw.data(1.5)).step, -0.3 * draw.g, rtol=1e-12)
    for move in (TRPOStep(), NaturalGradientStep(), GradientStep()):
        assert int(move(draw.data()).case) == Case.UNCONSTRAINED and not move.limits


def asked(move, H, g, b, c):
    """The proposal of a move in a region of size 0.1."""
    solved = Solved.of(H, jnp.concatenate([g[None], b]), CGSettings())
    return move(Linearised(solved, c, H, jnp.float32(0.1), jnp.float32(1.0)))


MOVES = [CPOStep(), TRPOStep(), PCPOStep(), KLPenalisedStep(), NaturalGradientStep(), GradientStep()]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_what_is_not_finite_moves_nothing(move):
    eye = lineax.IdentityLinearOperator(jax.ShapeDtypeStruct((2,), jnp.float32))
    for g, b in (([jnp.nan, 1.0], [1.0, 0.0]), ([jnp.inf, 1.0], [1.0, 0.0])):
        found = jax.jit(partial(asked, move, eye))(jnp.array(g), jnp.array([b]), jnp.zeros(1))
        assert int(found.case) == Case.INVALID
        np.testing.assert_array_equal(found.step, 0)


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_zero_gradients_are_no_trouble(move):
    """g = 0 and b = 0: no step, and derivatives that are finite."""
    eye = lineax.IdentityLinearOperator(jax.ShapeDtypeStruct((2,), jnp.float32))

    def step(g, b, c):
        return asked(move, eye, g, b, c).step

    zero = (jnp.zeros(2), jnp.zeros((1, 2)), jnp.full(1, -0.1))
    np.testing.assert_array_equal(step(*zero), 0)
    for slope in jax.jit(jax.jacrev(step, argnums=(0, 1, 2)))(*zero):
        assert np.all(np.isfinite(slope))
