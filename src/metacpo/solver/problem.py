"""What is solved and what comes back: the constrained trust-region step.

minimise gᵀx   subject to   c_j + b_jᵀx ≤ 0  (j = 1..m),   ½ xᵀHx ≤ δ            (1)
"""

from enum import IntEnum

import equinox as eqx
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.inputs import floating, operator, optional, scalar


class Case(IntEnum):
    """Which part of the solution map answered. The numbers 0..4 are those of OmniSafe's `OptimCase`."""

    INFEASIBLE = 0
    """No point of the trust region is feasible: the step lowers the violation as far as the region allows."""
    RECOVERING = 1
    """Some c_j > 0: violated at x = 0, feasible inside the region, and some constraint binds."""
    BINDING = 2
    """All c_j ≤ 0: satisfied at x = 0, and some constraint binds."""
    SLACK = 3
    """The step of the problem without constraints satisfies them all (ν = 0)."""
    UNCONSTRAINED = 4
    """There is nothing to satisfy: m = 0, or every b_j = 0 with c_j ≤ 0."""
    INVALID = 5
    """No step can be trusted (non-finite number, δ ≤ 0, H not positive definite as far as conjugate gradients saw of
    it): the step is zero."""


class Problem(eqx.Module):
    """Problem (1). Arrays, or lists of floating numbers; it is solved in the floating type of g, which the others take.

    - `g` [n]: gradient of the objective that is *lowered*; units objective/x.
    - `b` [m, n]: gradient of each constraint; units constraint/x.
    - `c` [m]: value of each constraint at x = 0, in the units of its row of b; c_j > 0 means violated.
    - `metric`: H as a positive definite Lineax operator from [n] to [n], applied in its own floating type, or as a
      matrix [n, n]; `None` means H = I.
    - `delta` []: size δ > 0 of the trust region, in the units of ½ xᵀHx.
    - `weight` [m] > 0: how much each constraint counts where not all can be met; `None` means 1 each. Read only
      if the problem is INFEASIBLE: then x minimises ½Σ_j weight_j (c_j + b_jᵀx)₊²/(b_jᵀH⁻¹b_j) over the region,
      every violation measured by its distance in H.
    """

    g: Float[Array, " n"] = eqx.field(converter=floating("g"))
    b: Float[Array, "m n"] = eqx.field(converter=floating("b"))
    c: Float[Array, " m"] = eqx.field(converter=floating("c"))
    metric: lx.AbstractLinearOperator | None = eqx.field(converter=operator("metric"))
    delta: Float[Array, ""] | float = eqx.field(converter=scalar("delta"))
    weight: Float[Array, " m"] | None = eqx.field(converter=optional("weight"), default=None)


class Stats(eqx.Module):
    """How good the numbers are; constant under differentiation.

    - `residuals` [m + 1]: ‖v − Hy‖₂ / ‖v‖₂ of the solves Hy = v, v = g, b_1, ..., b_m; 0 where v = 0.
    - `iterations` [m + 1]: of conjugate gradients, for the same.
    - `error` []: bound on ‖x − x*‖_H / √(2δ), x* the exact solution; ∞ where none is known (`CGSettings` has no
      `smallest_eigenvalue`, λ = 0, or x misses a constraint by more than rounding because CG stopped early).
    - `gradient_error` []: first-order estimate of the relative error, in H, of derivatives of the step; ∞ without
      `smallest_eigenvalue`. See `metacpo.solver.error_bounds.gradient_error`.
    - `pivots` []: of the search for the active constraints; 0 for m ≤ 1.
    - `converged` []: that search came to its end.
    """

    residuals: Float[Array, " k"]
    iterations: Int[Array, " k"]
    error: Float[Array, ""]
    gradient_error: Float[Array, ""]
    pivots: Int[Array, ""]
    converged: Bool[Array, ""]


class Solution(eqx.Module):
    """Solution of (1) and its multipliers: g + Σ_j ν_j b_j + λHx = 0 with λ ≥ 0, ν_j ≥ 0.

    - `step` [n]: x. Never NaN.
    - `lam` []: λ, multiplier of the trust region; units objective/δ. Kept finite where the true one is not.
    - `nu` [m]: ν, multiplier of each constraint; units objective/constraint.
      For INFEASIBLE, λ and ν are those of the objective that x minimises then, ½Σ_j weight_j (c_j + b_jᵀx)₊²/s_j with
      s_j = b_jᵀH⁻¹b_j, in the units of δ and for every m: ν_j = weight_j (c_j + b_jᵀx)₊/s_j, 0 where b_j = 0, and
      Σ_j ν_j b_j + λHx = 0.
    - `case` []: a `Case`.
    - `residual` []: the largest of `stats.residuals`; 1 for INVALID. Constant under differentiation.
    - `derivative_clipped` []: the derivative here is a bounded stand-in for one that is unbounded or undefined.
    - `active` [m]: the constraints whose multipliers determine x: they bind, or, if INFEASIBLE, stay violated.
      Of redundant constraints that meet in x, only as many as are independent.
    - `stats`: `Stats`.
    """

    step: Float[Array, " n"]
    lam: Float[Array, ""]
    nu: Float[Array, " m"]
    case: Int[Array, ""]
    residual: Float[Array, ""]
    derivative_clipped: Bool[Array, ""]
    active: Bool[Array, " m"]
    stats: Stats


class Answer(eqx.Module):
    """The step of a closed form before it is checked: x, Hx (constant under differentiation) and what `Solution` tells.

    In the units of scaled g and b. λ and ν times `unit` are those of `Solution` if the case is INFEASIBLE: one row is
    solved as min bᵀx, with ν = 1, and `unit` is then the slope of the violation in bᵀx; in all other cases it is 1.
    `condition` ≥ 1 is by how much the closed form's slopes change, relatively, when y = H⁻¹(g, B) does: see
    `metacpo.solver.error_bounds.gradient_error`.
    """

    x: Float[Array, " n"]
    hx: Float[Array, " n"]
    lam: Float[Array, ""]
    nu: Float[Array, " m"]
    unit: Float[Array, ""]
    case: Int[Array, ""]
    active: Bool[Array, " m"]
    derivative_clipped: Bool[Array, ""]
    condition: Float[Array, ""]
    pivots: Int[Array, ""]
    converged: Bool[Array, ""]
