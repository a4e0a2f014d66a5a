"""A step before its line search, whether it passes the acceptance test there, and what became of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.algorithms.objectives import Weights
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.steps import Proposal
from metacpo.solver import Case

LossAndConstraints = tuple[Float[Array, ""], Float[Array, " m"]]  # (L_R, c)


class Proposed(eqx.Module):
    """A step before its line search: x, the weights of f, δ, what of the data is signal, what 1 of each violation
    weighs where not all can be repaired, 1/s_j (0 where b_j = 0: no step changes it), and the iterations that conjugate
    gradients took."""

    proposal: Proposal
    weights: Weights
    delta: Float[Array, ""]
    signal: Signal
    violation_weight: Float[Array, " m"]
    cg_iterations: Int[Array, ""]


class StepStats(eqx.Module):
    """What became of one update. Predicted are changes by the surrogates, for the accepted step."""

    case: Float[Array, "*M"]
    accepted: Float[Array, "*M"]
    kl: Float[Array, "*M"]
    delta: Float[Array, "*M"]
    alpha: Float[Array, "*M"]
    residual: Float[Array, "*M"]
    derivative_clipped: Float[Array, "*M"]
    nonfinite: Float[Array, "*M"]  # 1 if it was rejected because of a number that is not finite
    cost_share: Float[Array, "*M"]  # of the weights in the objective: ν/(1 + ν) for a multiplier ν
    predicted_loss: Float[Array, "*M"]  # change of L_R
    predicted_cost: Float[Array, "*M m"]  # change of c, per-step units
    signal: Signal
    cg_iterations: Float[Array, "*M"]
    lam: Float[Array, "*M"] | None  # λ and ν of the step, where it has them
    nu: Float[Array, "*M k"] | None


def none_where(nothing: Bool[Array, ""], proposed: Proposed) -> Proposed:
    """The proposal, or INVALID and no step where there is nothing that it could be made of."""
    old = proposed.proposal
    step, lam, nu = jax.tree.map(lambda x: jnp.where(nothing, 0, x), (old.step, old.lam, old.nu))
    case, residual = jnp.where(nothing, jnp.int32(Case.INVALID), old.case), jnp.where(nothing, 1, old.residual)
    void = Proposal(step, case, residual, old.derivative_clipped & ~nothing, lam, nu)
    return eqx.tree_at(lambda p: p.proposal, proposed, void)


def accept(
    proposed: Proposed,
    before: LossAndConstraints,
    after: LossAndConstraints,
    divergence: Float[Array, ""],
    limits: bool,
) -> Bool[Array, ""]:
    """Whether a step passes the acceptance test on the surrogates themselves, not on their linearisation.

    KL ≤ δ; the objective f falls, unless the step had to trade it for the constraints (INFEASIBLE and RECOVERING).
    Where the step keeps the `limits`, every constraint is held, or at least not worsened where it was violated; a step
    that cannot hold all (INFEASIBLE) trades them against each other, and lowers what it minimises,

        V(c) = ½Σ_j max(0, c_j)²/s_j        (solver/rows.py).

    NaN is never acceptable.
    """
    (L_R, c), (L_R_new, c_new), weights = before, after, proposed.weights
    case = proposed.proposal.case
    change = weights.reward * (L_R_new - L_R) + weights.costs @ (c_new - c)
    verdict = (divergence <= proposed.delta) & jnp.isfinite(L_R_new) & jnp.all(jnp.isfinite(c_new))
    if not limits:
        return verdict & (change <= 0)

    def violation(c: Float[Array, " m"]) -> Float[Array, ""]:
        return jnp.sum(proposed.violation_weight * jnp.maximum(c, 0.0) ** 2)

    infeasible = case == Case.INFEASIBLE
    held = jnp.where(infeasible, violation(c_new) <= violation(c), jnp.all(c_new <= jnp.maximum(c, 0.0)))
    return verdict & held & ((change <= 0) | infeasible | (case == Case.RECOVERING))
