"""One update of a policy on fixed data, whatever the algorithm: what it lowers, how it moves, how far.

    (g, b, c) = linearised surrogates at φ        trust_region.py
    f = reward·L_R + costs·c                      aims.py      (the Lagrangian, a switch, a penalty, or L_R alone)
    x = move(∇f, b, c, H, δ)                      moves.py     (CPO's step, TRPO's, PCPO's, a gradient step, ...)
    φ' = φ + α·x                                  α by a line search that holds the step to its word

`update` does all of it. `propose` stops before the line search, and is differentiable: a meta-gradient goes
through it with α and δ held constant.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.algorithms.aims import Aim, Reward, Weights
from metacpo.algorithms.finite import all_finite
from metacpo.algorithms.knobs import Knobs
from metacpo.algorithms.moves import Constrained, Linearised, Move, Proposal
from metacpo.algorithms.trust_region import (
    LinearData,
    TrustRegionSettings,
    cg_settings,
    linearise,
    metric,
    trust_region,
)
from metacpo.estimation import Batch, kl, surrogates
from metacpo.policies import GaussianPolicy
from metacpo.solver import Case, backtrack

Objective = tuple[Float[Array, ""], Float[Array, " m"]]  # (L_R, c)


@dataclass(frozen=True)
class Rule:
    """An update as a composition. The default is CPO's."""

    aim: Aim = field(default_factory=Reward)
    move: Move = field(default_factory=Constrained)
    region: TrustRegionSettings = field(default_factory=TrustRegionSettings)


class StepStats(eqx.Module):
    """What became of one update. Promises are changes that the surrogates predict for the accepted step.

    delta is the region's size before the factor that knobs carry: what `propose` takes again.
    """

    case: Float[Array, "*M"]
    accepted: Float[Array, "*M"]
    kl: Float[Array, "*M"]
    delta: Float[Array, "*M"]
    alpha: Float[Array, "*M"]
    residual: Float[Array, "*M"]
    edge: Float[Array, "*M"]
    nonfinite: Float[Array, "*M"]  # 1 if it was rejected because of a number that is not finite
    cost_share: Float[Array, "*M"]  # of the weights in the aim: ν/(1 + ν) for a multiplier ν
    promised_loss: Float[Array, "*M"]  # change of L_R
    promised_cost: Float[Array, "*M m"]  # change of c, per-step units


def propose(
    policy: GaussianPolicy,
    phi: Float[Array, " n"],
    knobs: Knobs,
    batch: Batch,
    delta: Float[Array, ""] | None,
    rule: Rule,
    linear: Callable[[GaussianPolicy, Array, Batch], LinearData] = linearise,
) -> tuple[Proposal, Weights, Knobs, Float[Array, ""]]:
    """(x, the weights of f, the knobs afterwards, δ) at φ on a batch.

    Differentiable in φ and the knobs (reverse mode) with the batch and δ fixed: the meta-gradient goes through here.
    δ is before the factor that the knobs carry; without a given one it is that of `trust_region`. `linear` says how
    the data's dependence on φ counts in the derivative.
    """
    g, b, c = linear(policy, phi, batch)
    weights, knobs_after = rule.aim(c, knobs)
    H = metric(policy, phi, batch, rule.region)
    if delta is None:
        delta = trust_region(b, c, H, rule.region)
    delta, scale = jax.lax.stop_gradient(delta), jnp.exp(knobs.log_scale)
    data = Linearised(weights.reward * g + weights.costs @ b, b, c, H, delta * scale, scale)
    return rule.move(data, cg_settings(rule.region)), weights, knobs_after, delta


def update(
    policy: GaussianPolicy, phi: Float[Array, " n"], knobs: Knobs, batch: Batch, rule: Rule
) -> tuple[Float[Array, " n"], Knobs, StepStats]:
    """φ + α·x with the largest accepted α (0 if none): the step of an inner loop, not differentiated."""
    proposal, weights, knobs, delta = propose(policy, phi, knobs, batch, None, rule)

    def objective(new: Float[Array, " n"]) -> Objective:
        return surrogates(policy, new, batch)

    def divergence(new: Float[Array, " n"]) -> Float[Array, ""]:
        return kl(policy, phi, new, batch)

    bound = delta * jnp.exp(knobs.log_scale)
    phi, stats = line_search(phi, proposal, weights, bound, objective, divergence, rule)
    return phi, knobs, eqx.tree_at(lambda s: s.delta, stats, delta)


def line_search(
    phi: Float[Array, " k"],
    proposal: Proposal,
    weights: Weights,
    delta: Float[Array, ""],
    objective: Callable[[Float[Array, " k"]], Objective],
    divergence: Callable[[Float[Array, " k"]], Float[Array, ""]],
    rule: Rule,
) -> tuple[Float[Array, " k"], StepStats]:
    """φ + α·x with the largest α that keeps the step's word on `objective` (L_R, c) and on the KL from φ.

    If none does, φ stays as it is, and what the stats promise is no change. A move that is not searched keeps α = 1
    as long as everything about it is finite.
    """
    before = objective(phi)

    def trial(alpha: Float[Array, ""]):
        new = phi + alpha * proposal.step
        after, distance = objective(new), divergence(new)
        if rule.move.searched:
            verdict = acceptable(proposal.case, before, after, weights, distance, delta, rule.move.limits)
        else:
            verdict = jnp.all(jnp.isfinite(new)) & jnp.isfinite(distance) & (proposal.case != Case.INVALID)
        return verdict, (after, distance)

    ratio, most = jnp.asarray(rule.region.backtrack_ratio, phi.dtype), rule.region.backtracks
    alpha, accepted, _, (after, distance) = backtrack(trial, ratio, most if rule.move.searched else 0)
    known = all_finite((before, after, distance)) & (proposal.case != Case.INVALID)
    stats = StepStats(
        case=proposal.case.astype(phi.dtype),
        accepted=accepted.astype(phi.dtype),
        kl=jnp.where(accepted, distance, 0.0),
        delta=delta,
        alpha=alpha,
        residual=proposal.residual,
        edge=proposal.edge.astype(phi.dtype),
        nonfinite=(~accepted & ~known).astype(phi.dtype),
        cost_share=jnp.sum(weights.costs) / (weights.reward + jnp.sum(weights.costs)),
        promised_loss=jnp.where(accepted, after[0] - before[0], 0.0),
        promised_cost=jnp.where(accepted, after[1] - before[1], 0.0),
    )
    return jnp.where(accepted, phi + alpha * proposal.step, phi), stats


def acceptable(
    case: Array,
    before: Objective,
    after: Objective,
    weights: Weights,
    divergence: Float[Array, ""],
    delta: Float[Array, ""],
    limits: bool,
) -> Bool[Array, ""]:
    """Whether a step keeps its word on the surrogates themselves, not on their linearisation.

    KL ≤ δ; the aim f falls, unless the step had to trade it for the constraint (cases INFEASIBLE and RECOVERING); and
    where the move keeps the `limits`, the constraint is held, or at least not worsened where it was violated. NaN is
    never acceptable.
    """
    (L_R, c), (L_R_new, c_new) = before, after
    change = weights.reward * (L_R_new - L_R) + weights.costs @ (c_new - c)
    verdict = (divergence <= delta) & jnp.isfinite(L_R_new)
    if not limits:
        return verdict & (change <= 0)
    recovering = (case == Case.INFEASIBLE) | (case == Case.RECOVERING)
    return verdict & jnp.all(c_new <= jnp.maximum(c, 0.0)) & ((change <= 0) | recovering)
