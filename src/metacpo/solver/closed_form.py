"""The dual of the step with one constraint, in closed form.

    minimise gᵀx   subject to   c + bᵀx ≤ 0  (multiplier ν),   ½ xᵀHx ≤ δ  (multiplier λ)

The Lagrangian is stationary at  x = −H⁻¹(g + νb)/λ.  With

    q = gᵀH⁻¹g,   r = gᵀH⁻¹b,   s = bᵀH⁻¹b,   A = q − r²/s,   B = 2δ − c²/s,

- *slack* (ν = 0): xᵀHx = q/λ² = 2δ gives λ = √(q/2δ), and there c + bᵀx = c − r/λ.
- *binding* (bᵀx = −c): (r + νs)/λ = c gives ν = (λc − r)/s, so that
  x = −H⁻¹(g − (r/s)b)/λ − (c/s)H⁻¹b, two parts orthogonal in H, of squared lengths A/λ² and c²/s;
  A/λ² + c²/s = 2δ gives λ = √(A/B).
- *infeasible*: min bᵀx over the ball is −√(2δs); when c exceeds √(2δs), B < 0 and no x is feasible.
  The recovery problem min bᵀx has λ = √(s/2δ) and, b being its objective, ν = 1.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.bounded import bounded_quotient, bounded_sqrt
from metacpo.solver.problem import Case


class Scalars(eqx.Module):
    """The numbers that decide everything, q, s, A ≥ 0 and δ > 0, signs as in the module's formulas.

    A is given, not computed here, because q − r²/s cancels: see `metacpo.solver.step`. Only used if binding.
    """

    q: Float[Array, ""]
    r: Float[Array, ""]
    s: Float[Array, ""]
    c: Float[Array, ""]
    delta: Float[Array, ""]
    A: Float[Array, ""]


class Dual(eqx.Module):
    """Multipliers λ and ν, and A, B with the bounds under which their roots are clipped (see `bounded`).

    A, B, q and s hold harmless values in the cases that have no use for them.
    """

    lam: Float[Array, ""]
    nu: Float[Array, ""]
    A: Float[Array, ""]
    B: Float[Array, ""]
    A_floor: Float[Array, ""]
    B_floor: Float[Array, ""]
    A_tiny: Float[Array, ""]
    clipped: Bool[Array, ""]


def _positive(x: Float[Array, ""]) -> Float[Array, ""]:
    """x where x > 0, else 1: a denominator for branches that are not selected."""
    return jnp.where(x > 0, x, 1)


def binds(case: Int[Array, ""]) -> Bool[Array, ""]:
    """The step lies on the constraint's boundary, c + bᵀx = 0."""
    return (case == Case.RECOVERING) | (case == Case.BINDING)


def classify(p: Scalars) -> Int[Array, ""]:
    """The `Case` (0..4). s = 0 means b = 0: with c > 0 nothing helps, otherwise nothing is asked."""
    q, r, s, c, delta = p.q, p.r, _positive(p.s), p.c, p.delta
    B = 2 * delta - c**2 / s
    # The slack step is −√(2δ/q) H⁻¹g, and 0 for g = 0.
    value_at_slack = c - jnp.where(q > 0, jnp.sqrt(2 * delta / _positive(q)), 0) * r
    infeasible = (c > 0) & (B < 0)
    binding = (value_at_slack > 0) & (B >= 0)
    case = jnp.where(
        infeasible,
        Case.INFEASIBLE,
        jnp.where(binding, jnp.where(c > 0, Case.RECOVERING, Case.BINDING), Case.SLACK),
    )
    without_b = jnp.where(c > 0, Case.INFEASIBLE, Case.UNCONSTRAINED)
    return jnp.where(p.s > 0, case, without_b).astype(jnp.int32)


def dual(p: Scalars, case: Int[Array, ""], derivative_floor: float) -> Dual:
    """λ and ν of `case`, as `classify` found it.

    `derivative_floor` in (0, 1): roots of A and B have exact slopes for A ≥ derivative_floor·q and
    B ≥ derivative_floor·2δ. As B → 0 the true λ and ν grow without bound; they are evaluated at B ≥ 100 eps·2δ.
    """
    # Numbers that only another case uses are replaced before they can overflow: an infinity in a branch that
    # is not selected becomes a NaN in reverse mode.
    binding = binds(case)
    q, s, delta = _positive(p.q), _positive(p.s), p.delta
    r = jnp.where(binding, p.r, 0)
    c = jnp.where(binding, p.c, 0)

    A = jnp.where(binding, p.A, q)
    B = 2 * delta - c**2 / s
    rounding = 100 * float(jnp.finfo(q.dtype).eps)
    A_floor, A_tiny = derivative_floor * q, rounding * q
    B_floor, B_tiny = derivative_floor * 2 * delta, rounding * 2 * delta
    has_g, has_b = p.q > 0, p.s > 0

    lam_binding = jnp.where(has_g, bounded_quotient(bounded_sqrt(A, A_floor), B, B_floor, B_tiny), 0)
    nu_binding = jnp.maximum(0, (lam_binding * c - r) / s)
    lam_slack = jnp.where(has_g, jnp.sqrt(q / (2 * delta)), 0)
    lam_recovery = jnp.where(has_b, jnp.sqrt(s / (2 * delta)), 0)

    infeasible = case == Case.INFEASIBLE
    lam = jnp.where(binding, lam_binding, jnp.where(infeasible, lam_recovery, lam_slack))
    nu = jnp.where(binding, nu_binding, jnp.where(infeasible, 1, 0))
    clipped = binding & ((A < A_floor) | (B < B_floor))
    return Dual(lam, nu, A, B, A_floor, B_floor, A_tiny, clipped)
