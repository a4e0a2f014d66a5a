"""How an update moves: from the linearised data (g, b, c) and the metric H to a step x.

Descent convention throughout (DESIGN.md §3): g is the gradient of what is lowered, c_j + b_jᵀx ≤ 0 are the
constraints, q = gᵀH⁻¹g, r = bᵀH⁻¹g, s = bᵀH⁻¹b. Every move is differentiable in all of its inputs.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver import Case, CGSettings, Implicit, Problem, inverse_times, relative_residual, solve

Operator = lineax.AbstractLinearOperator


class Linearised(eqx.Module):
    """What a move knows: g [n], b [m, n], c [m], H (None: the identity), the region's size δ, and the rate's factor."""

    g: Float[Array, " n"]
    b: Float[Array, "m n"]
    c: Float[Array, " m"]
    H: Operator | None
    delta: Float[Array, ""]
    scale: Float[Array, ""]


class Proposal(eqx.Module):
    """x [n] and how it came about; see `metacpo.solver.Solution`. x is 0 where `case` is INVALID."""

    step: Float[Array, "*M n"]
    case: Int[Array, "*M"]
    residual: Float[Array, "*M"]
    edge: Bool[Array, "*M"]


@runtime_checkable
class Move(Protocol):
    """limits: whether the step keeps the constraints, so that its line search holds it to them.

    searched: whether a line search shortens the step until it keeps its word; if not, it is taken as it is.
    """

    limits: bool
    searched: bool

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal: ...


@dataclass(frozen=True)
class Constrained:
    """min gᵀx s.t. c + bᵀx ≤ 0, ½xᵀHx ≤ δ: the step of CPO (Achiam et al. 2017, eqs. 10-14)."""

    limits = True
    searched = True

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        solution = solve(Problem(data.g, data.b, data.c, data.H, data.delta), cg=cg)
        return Proposal(solution.step, solution.case, solution.residual, solution.edge)


@dataclass(frozen=True)
class Free:
    """min gᵀx s.t. ½xᵀHx ≤ δ, i.e. x = −√(2δ/q)·H⁻¹g: the step of TRPO (Schulman et al. 2015)."""

    limits = False
    searched = True

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        solution = solve(Problem(data.g, data.b[:0], data.c[:0], data.H, data.delta), cg=cg)
        return Proposal(solution.step, solution.case, solution.residual, solution.edge)


@dataclass(frozen=True)
class Projected:
    """TRPO's step, then the nearest point (in H) that holds the constraint: PCPO (Yang et al. 2020, eq. 6), m ≤ 1.

        x = −√(2δ/q)·H⁻¹g − max(0, (c − √(2δ/q)·r)/s)·H⁻¹b

    The projection may leave the region; the line search brings it back. b = 0 projects nothing.
    """

    limits = True
    searched = True

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        if data.c.shape[0] == 0:
            return Free()(data, cg)
        g, b, c = data.g, data.b[0], data.c[0]
        (y_g, y_b), residual = _inverse(data.H, jnp.stack([g, b]), cg)
        q, r, s = g @ y_g, b @ y_g, b @ y_b
        speed = jnp.sqrt(jnp.where(q > 0, 2 * data.delta / jnp.where(q > 0, q, 1), 0))
        excess = jnp.where(s > 0, jnp.maximum(0, c - speed * r) / jnp.where(s > 0, s, 1), 0)
        case = jnp.where(excess > 0, jnp.where(c > 0, Case.RECOVERING, Case.BINDING), Case.SLACK)
        return _proposal(-speed * y_g - excess * y_b, case, residual)


@dataclass(frozen=True)
class Penalised:
    """The one-step adaptation of "Efficient Safe Meta-RL" (Xu and Zhu, NeurIPS 2025) in closed form.

        min gᵀx + λ·½xᵀHx   s.t.   c_j + b_jᵀx + λ_c·½xᵀHx ≤ 0

    Its Lagrangian is least at x = −H⁻¹(g + Σ_j u_j b_j)/η, η = λ + λ_c Σu; u ≥ 0 maximises the concave dual

        D(u) = −½ (g + Bᵀu)ᵀH⁻¹(g + Bᵀu)/η + u·c

    by projected gradient steps, kept in [0, most]. The paper tilts a softmax policy, π ∝ π_φ·exp(A/η); H⁻¹g is the
    tilt's tangent (the natural gradient; for a softmax table, and for a Gaussian's mean under an advantage
    that is linear in the action, it is the tilt itself).
    """

    price: float = 10.0  # λ, loss per step and nat
    cost_price: float = 0.0  # λ_c, cost per step and nat
    most: float = 8.0  # of a multiplier, as the authors' code clips it
    steps: int = 200
    limits = True
    searched = True

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        rhs = jnp.concatenate([data.g[None], data.b])
        y, residual = _inverse(data.H, rhs, cg)
        gram = rhs @ y.T  # of g, b_1, ..., b_m under H⁻¹
        u = self._dual(gram, data.c) if data.c.shape[0] else data.c
        eta = (self.price + self.cost_price * jnp.sum(u)) / data.scale
        case = jnp.where(jnp.any(u > 0), jnp.where(jnp.any(data.c > 0), Case.RECOVERING, Case.BINDING), Case.SLACK)
        return _proposal(-(y[0] + u @ y[1:]) / eta, case, residual)

    def _dual(self, gram: Float[Array, "k k"], c: Float[Array, " m"]) -> Float[Array, " m"]:
        """argmax D over [0, most]ᵐ from u = 0. gram: of g, b_1, ..., b_m under H⁻¹."""
        curvature = jnp.trace(gram[1:, 1:]) / self.price  # no eigenvalue of D's Hessian is larger where λ_c = 0
        rate = 1 / jnp.where(curvature > 0, curvature, 1)

        def value(u: Float[Array, " m"]) -> Float[Array, ""]:
            v = jnp.append(jnp.ones(1, u.dtype), u)
            return -0.5 * (v @ gram @ v) / (self.price + self.cost_price * jnp.sum(u)) + u @ c

        def ascend(u: Float[Array, " m"], _):
            return jnp.clip(u + rate * jax.grad(value)(u), 0, self.most), None

        return jax.lax.scan(ascend, jnp.zeros_like(c), length=self.steps)[0]


@dataclass(frozen=True)
class Natural:
    """x = −rate·H⁻¹g: a natural gradient step of a given size, as CRPO's."""

    rate: float = 0.1
    limits = False
    searched = True

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        (y,), residual = _inverse(data.H, data.g[None], cg)
        return _proposal(-self.rate * data.scale * y, jnp.asarray(Case.UNCONSTRAINED), residual)


@dataclass(frozen=True)
class Descent:
    """x = −rate·g, taken as it is: the inner step of MAML (Finn et al. 2017, eq. 1)."""

    rate: float = 0.1
    limits = False
    searched = False

    def __call__(self, data: Linearised, cg: CGSettings) -> Proposal:
        return _proposal(-self.rate * data.scale * data.g, jnp.asarray(Case.UNCONSTRAINED), jnp.zeros((), data.g.dtype))


def _inverse(H: Operator | None, rhs: Float[Array, "k n"], cg: CGSettings) -> tuple[Array, Float[Array, ""]]:
    """H⁻¹ times every row, and the largest relative residual; NaN where a row is not finite, whose y is 0."""
    y, hy, _ = inverse_times(H, rhs, cg, Implicit())
    known = jnp.all(jnp.isfinite(rhs)) & jnp.all(jnp.isfinite(hy))
    return y, jnp.where(known, jnp.max(relative_residual(rhs, hy)), jnp.nan)


def _proposal(x: Float[Array, " n"], case: Array, residual: Float[Array, ""]) -> Proposal:
    """Failure is a value: a step that is not finite is none."""
    finite = jnp.all(jnp.isfinite(x)) & jnp.isfinite(residual)
    case = jnp.where(finite, case, Case.INVALID).astype(jnp.int32)
    return Proposal(jnp.where(finite, x, 0), case, jnp.where(finite, residual, 1), jnp.asarray(False))
