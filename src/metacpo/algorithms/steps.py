"""How an update moves: from the linearised data (g, b, c) and the metric H to a step x.

Descent convention throughout (docs/conventions.md): g is the gradient of what is lowered, c_j + b_jᵀx ≤ 0 are the
constraints, q = gᵀH⁻¹g, r = bᵀH⁻¹g, s = bᵀH⁻¹b. H⁻¹(g, b) is known when a step rule is asked: none solves again. Every
rule is differentiable in all of its inputs.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver import Case, Problem, Solved, solve

Operator = lineax.AbstractLinearOperator


class Linearised(eqx.Module):
    """What a step rule knows: H⁻¹ of the rows (g, b_1, ..., b_m), c [m], H (None: the identity), the region's size δ,
    and the rate's factor."""

    solved: Solved
    c: Float[Array, " m"]
    H: Operator | None
    delta: Float[Array, ""]
    scale: Float[Array, ""]

    @property
    def g(self) -> Float[Array, " n"]:
        return self.solved.v[0]

    @property
    def b(self) -> Float[Array, "m n"]:
        return self.solved.v[1:]


class Proposal(eqx.Module):
    """x [n] and how it came about; see `metacpo.solver.Solution`. x is 0 where `case` is INVALID.

    lam, nu [m]: the multipliers of the region and of the constraints, None of a step that has none.
    """

    step: Float[Array, "*M n"]
    case: Int[Array, "*M"]
    residual: Float[Array, "*M"]
    derivative_clipped: Bool[Array, "*M"]
    lam: Float[Array, "*M"] | None = None
    nu: Float[Array, "*M m"] | None = None


@runtime_checkable
class StepRule(Protocol):
    """limits: whether the step keeps the constraints, so that its line search holds it to them.

    searched: whether a line search shortens the step until it passes the acceptance test; if not, it is taken as it is.
    """

    limits: bool
    searched: bool

    def __call__(self, data: Linearised) -> Proposal: ...


@dataclass(frozen=True)
class CPOStep:
    """min gᵀx s.t. c + bᵀx ≤ 0, ½xᵀHx ≤ δ: the step of CPO (Achiam et al. 2017, eqs. 10-14)."""

    limits = True
    searched = True

    def __call__(self, data: Linearised) -> Proposal:
        found = solve(Problem(data.g, data.b, data.c, data.H, data.delta), solved=data.solved)
        return Proposal(found.step, found.case, found.residual, found.derivative_clipped, found.lam, found.nu)


@dataclass(frozen=True)
class TRPOStep:
    """min gᵀx s.t. ½xᵀHx ≤ δ, i.e. x = −√(2δ/q)·H⁻¹g: the step of TRPO (Schulman et al. 2015)."""

    limits = False
    searched = True

    def __call__(self, data: Linearised) -> Proposal:
        alone = jax.tree.map(lambda x: x[:1], data.solved)
        found = solve(Problem(data.g, data.b[:0], data.c[:0], data.H, data.delta), solved=alone)
        return Proposal(found.step, found.case, found.residual, found.derivative_clipped, found.lam)


@dataclass(frozen=True)
class PCPOStep:
    """TRPO's step, then the nearest point (in H) that holds the constraint: PCPO (Yang et al. 2020, eq. 6), m ≤ 1.

        x = −√(2δ/q)·H⁻¹g − max(0, (c − √(2δ/q)·r)/s)·H⁻¹b

    The projection may leave the region; the line search brings it back. b = 0 projects nothing.
    """

    limits = True
    searched = True

    def __call__(self, data: Linearised) -> Proposal:
        if data.c.shape[0] == 0:
            return TRPOStep()(data)
        g, b, c = data.g, data.b[0], data.c[0]
        y_g, y_b = data.solved.y
        q, r, s = g @ y_g, b @ y_g, b @ y_b
        speed = jnp.sqrt(jnp.where(q > 0, 2 * data.delta / jnp.where(q > 0, q, 1), 0))
        excess = jnp.where(s > 0, jnp.maximum(0, c - speed * r) / jnp.where(s > 0, s, 1), 0)
        case = jnp.where(excess > 0, jnp.where(c > 0, Case.RECOVERING, Case.BINDING), Case.SLACK)
        return _proposal(-speed * y_g - excess * y_b, case, data.solved.residual)


@dataclass(frozen=True)
class KLPenalisedStep:
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

    def __call__(self, data: Linearised) -> Proposal:
        y, gram = data.solved.y, data.solved.products()
        u = self._dual(gram, data.c) if data.c.shape[0] else data.c
        eta = (self.price + self.cost_price * jnp.sum(u)) / data.scale
        case = jnp.where(jnp.any(u > 0), jnp.where(jnp.any(data.c > 0), Case.RECOVERING, Case.BINDING), Case.SLACK)
        return _proposal(-(y[0] + u @ y[1:]) / eta, case, data.solved.residual, eta, u)

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
class NaturalGradientStep:
    """x = −rate·H⁻¹g: a natural gradient step of a given size, as CRPO's."""

    rate: float = 0.1
    limits = False
    searched = True

    def __call__(self, data: Linearised) -> Proposal:
        x = -self.rate * data.scale * data.solved.y[0]
        return _proposal(x, jnp.asarray(Case.UNCONSTRAINED), data.solved.residual)


@dataclass(frozen=True)
class GradientStep:
    """x = −rate·g, taken as it is: the inner step of MAML (Finn et al. 2017, eq. 1)."""

    rate: float = 0.1
    limits = False
    searched = False

    def __call__(self, data: Linearised) -> Proposal:
        return _proposal(-self.rate * data.scale * data.g, jnp.asarray(Case.UNCONSTRAINED), jnp.zeros((), data.g.dtype))


def _proposal(
    x: Float[Array, " n"],
    case: Array,
    residual: Float[Array, ""],
    lam: Float[Array, ""] | None = None,
    nu: Float[Array, " m"] | None = None,
) -> Proposal:
    """Failure is a value: a step that is not finite is none."""
    finite = jnp.all(jnp.isfinite(x)) & jnp.isfinite(residual)
    case = jnp.where(finite, case, Case.INVALID).astype(jnp.int32)
    x, lam, nu = jax.tree.map(lambda value: jnp.where(finite, value, 0), (x, lam, nu))
    return Proposal(x, case, jnp.where(finite, residual, 1), jnp.asarray(False), lam, nu)
