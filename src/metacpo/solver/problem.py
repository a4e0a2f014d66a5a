"""What is solved and what comes back: the constrained trust-region step.

minimise gᵀx   subject to   c_j + b_jᵀx ≤ 0  (j = 1..m),   ½ xᵀHx ≤ δ            (1)
"""

from enum import IntEnum

import equinox as eqx
import lineax as lx
from jaxtyping import Array, Bool, Float, Int


class Case(IntEnum):
    """Which part of the solution map answered. The numbers 0..4 are those of OmniSafe's `OptimCase`."""

    INFEASIBLE = 0
    """No point of the trust region is feasible: the step lowers bᵀx as far as the region allows."""
    RECOVERING = 1
    """c > 0: violated at x = 0, feasible inside the region, and the constraint binds."""
    BINDING = 2
    """c ≤ 0: satisfied at x = 0, and the constraint binds."""
    SLACK = 3
    """The step of the problem without constraints satisfies the constraint (ν = 0)."""
    UNCONSTRAINED = 4
    """There is nothing to satisfy: m = 0, or b = 0 with c ≤ 0."""
    INVALID = 5
    """No step can be trusted (non-finite number, δ ≤ 0, H not positive definite): the step is zero."""


class Problem(eqx.Module):
    """Problem (1). All arrays share one floating dtype.

    - `g` [n]: gradient of the objective that is *lowered*; units objective/x.
    - `b` [m, n]: gradient of each constraint; units constraint/x.
    - `c` [m]: value of each constraint at x = 0, in the units of its row of b; c_j > 0 means violated.
    - `metric`: H as a positive (semi)definite Lineax operator from [n] to [n]; `None` means H = I.
    - `delta` []: size δ > 0 of the trust region, in the units of ½ xᵀHx.
    """

    g: Float[Array, " n"]
    b: Float[Array, "m n"]
    c: Float[Array, " m"]
    metric: lx.AbstractLinearOperator | None
    delta: Float[Array, ""] | float


class Solution(eqx.Module):
    """Solution of (1) and its multipliers: g + Σ_j ν_j b_j + λHx = 0 with λ ≥ 0, ν_j ≥ 0.

    - `step` [n]: x. Never NaN.
    - `lam` []: λ, multiplier of the trust region; units objective/δ. Kept finite where the true one is not.
    - `nu` [m]: ν, multiplier of each constraint; units objective/constraint. For INFEASIBLE, λ and ν are
      those of the recovery problem  min bᵀx  s.t. ½ xᵀHx ≤ δ  (ν = 1 and b + λHx = 0).
    - `case` []: a `Case`.
    - `residual` []: largest ‖v − Hy‖₂ / ‖v‖₂ over the solves Hy = v with v = g and v = b_j; 0 where v = 0,
      1 for INVALID. Constant under differentiation.
    - `edge` []: the derivative at this point is a bounded stand-in for one that is unbounded or undefined.
    """

    step: Float[Array, " n"]
    lam: Float[Array, ""]
    nu: Float[Array, " m"]
    case: Int[Array, ""]
    residual: Float[Array, ""]
    edge: Bool[Array, ""]
