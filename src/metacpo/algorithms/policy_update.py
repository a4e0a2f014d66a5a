"""One update of a policy on fixed data, whatever the algorithm: what it lowers, how it moves, how far.

    (g, b, c) = linearised surrogates at φ        trust_region.py
    f = reward·L_R + costs·c                      objectives.py   (the Lagrangian, a switch, a penalty, or L_R alone)
    H⁻¹(∇f, b), once; b̃, b without the noise in its square                                                     signal.py
    δ(c, b̃ᵀH⁻¹b̃)                                  trust_region.py
    x = step(∇f, b̃, c, H, δ)                      steps.py        (CPO's step, TRPO's, PCPO's, a gradient step, ...)
    φ' = φ + α·x                                  α by a line search with a test      acceptance.py

`update` does all of it. `compute_step` stops before the line search, and is differentiable: a meta-gradient goes
through it with α, and what of the data is signal, held constant.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float

from metacpo.algorithms.acceptance import LossAndConstraints, Proposed, StepStats, accept
from metacpo.algorithms.finite import all_finite
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.objectives import Objective, Reward, Weights
from metacpo.algorithms.signal import Signal, debiasing, measured
from metacpo.algorithms.steps import CPOStep, Linearised, StepRule
from metacpo.algorithms.trust_region import (
    LinearData,
    TrustRegionSettings,
    cg_settings,
    contrast_gradients,
    linearise,
    metric,
    trust_region,
)
from metacpo.estimation import Batch, kl, surrogates
from metacpo.policies import Policy
from metacpo.solver import Case, Solved, backtrack, row_sizes

BACKTRACK_RATIO, BACKTRACKS = 0.7, 10  # of the line search: α = 1, 0.7, 0.7², … at most 10 times shorter


@dataclass(frozen=True)
class PolicyUpdate:
    """An update as a composition. The default is CPO's."""

    objective: Objective = field(default_factory=Reward)
    step: StepRule = field(default_factory=CPOStep)
    region: TrustRegionSettings = field(default_factory=TrustRegionSettings)


def compute_step(
    policy: Policy,
    phi: Float[Array, " n"],
    inner_state: InnerState,
    batch: Batch,
    signal: Signal | None,
    method: PolicyUpdate,
    linear: Callable[[Policy, Array, Batch], LinearData] = linearise,
) -> tuple[Proposed, InnerState]:
    """The step at φ on a batch, and the inner state afterwards.

    Differentiable in φ and the inner state (reverse mode) with the batch and a given `signal` fixed: the meta-gradient
    goes through here. Without one the signal is measured, on the halves of the batch. `linear` says how the data's
    dependence on φ counts in the derivative.
    """
    g, b, c = linear(policy, phi, batch)
    c = c + batch.margin
    weights, inner_state_after = method.objective(c, inner_state)
    contrasts = contrast_gradients(policy, phi, batch) if signal is None else None
    data = UpdateData(g, b, c, metric(policy, phi, batch, method.region), contrasts)
    return composed(data, weights, jnp.exp(inner_state.log_scale), signal, method), inner_state_after


class UpdateData(eqx.Module):
    """(g, b, c) and the metric H of an update; contrasts [C, 1 + m, n]: of halves of what g and b are means of."""

    g: Float[Array, " n"]
    b: Float[Array, "m n"]
    c: Float[Array, " m"]
    H: lineax.AbstractLinearOperator | None
    contrasts: Float[Array, "C k n"] | None


def composed(
    data: UpdateData,
    weights: Weights,
    scale: Float[Array, ""],
    signal: Signal | None,
    method: PolicyUpdate,
) -> Proposed:
    """The step, δ and their company from linearised data; `signal` is measured on the contrasts if not given."""
    g, b, c, H = data.g, data.b, data.c, data.H
    k = 1 + c.shape[0]
    rows = jnp.concatenate([g[None], b])
    if signal is None and data.contrasts is not None:
        noise = data.contrasts.reshape(-1, g.shape[0])
        both = Solved.of(H, jnp.concatenate([rows, noise]), cg_settings(method.region))
        size = jnp.tile(row_sizes(rows), 1 + data.contrasts.shape[0])[:, None]
        squares = jnp.sum((both.v / size) * (both.y / size), axis=1)
        signal = measured(squares[:k], squares[k:].reshape(-1, k))
        solved = jax.tree.map(lambda x: x[:k], both)
    else:
        solved = Solved.of(H, rows, cg_settings(method.region))
    assert signal is not None, "either the signal or the contrasts to measure it"
    f = jnp.eye(k, dtype=g.dtype).at[0].set(jnp.append(weights.reward, weights.costs))
    solved = solved.combined(f)  # (∇f, b)
    size = row_sizes(solved.v)
    W = debiasing(solved.products(size), signal)
    solved = solved.combined(size[:, None] * W / size)  # (∇f, b̃)
    S = solved.products()[1:, 1:]
    # A step without limits has no share of its region that repairs: the learned scale is a factor on all of it.
    of_loss, of_all = (scale, 1.0) if method.step.limits else (jnp.ones_like(scale), scale)
    delta = of_all * trust_region(S, c, of_loss, signal, method.region)
    s = jnp.diagonal(S)
    proposal = method.step(Linearised(solved, c, H, delta, scale))
    violation_weight = jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)
    return Proposed(proposal, weights, delta, signal, violation_weight, jnp.max(solved.iterations))


def update(
    policy: Policy, phi: Float[Array, " n"], inner_state: InnerState, batch: Batch, method: PolicyUpdate
) -> tuple[Float[Array, " n"], InnerState, StepStats]:
    """φ + α·x with the largest accepted α (0 if none): the step of an inner loop, not differentiated."""
    proposed, inner_state = compute_step(policy, phi, inner_state, batch, None, method)

    def surrogate_values(new: Float[Array, " n"]) -> LossAndConstraints:
        L_R, c = surrogates(policy, new, batch)
        return L_R, c + batch.margin

    def divergence(new: Float[Array, " n"]) -> Float[Array, ""]:
        return kl(policy, phi, new, batch)

    phi, stats = line_search(phi, proposed, surrogate_values, divergence, method)
    return phi, inner_state, stats


def line_search(
    phi: Float[Array, " k"],
    proposed: Proposed,
    surrogate_values: Callable[[Float[Array, " k"]], LossAndConstraints],
    divergence: Callable[[Float[Array, " k"]], Float[Array, ""]],
    method: PolicyUpdate,
    before: LossAndConstraints | None = None,
) -> tuple[Float[Array, " k"], StepStats]:
    """φ + α·x with the largest α that passes the acceptance test (`accept`): on `surrogate_values` (L_R, c), and on the
    KL from φ. before: their values at φ, if they are known already.

    If none does, φ stays as it is, and the stats predict no change. A step that is not searched keeps α = 1
    as long as everything about it is finite.
    """
    before, proposal = surrogate_values(phi) if before is None else before, proposed.proposal

    def trial(alpha: Float[Array, ""]):
        new = phi + alpha * proposal.step
        after, distance = surrogate_values(new), divergence(new)
        if method.step.searched:
            verdict = accept(proposed, before, after, distance, method.step.limits)
        else:
            verdict = jnp.all(jnp.isfinite(new)) & jnp.isfinite(distance)
        return verdict & (proposal.case != Case.INVALID), (after, distance)

    ratio, most = jnp.asarray(BACKTRACK_RATIO, phi.dtype), BACKTRACKS if method.step.searched else 0
    alpha, accepted, _, (after, distance) = backtrack(trial, ratio, most)
    known = all_finite((before, after, distance)) & (proposal.case != Case.INVALID)
    stats = StepStats(
        case=proposal.case.astype(phi.dtype),
        accepted=accepted.astype(phi.dtype),
        kl=jnp.where(accepted, distance, 0.0),
        delta=proposed.delta,
        alpha=alpha,
        residual=proposal.residual,
        derivative_clipped=proposal.derivative_clipped.astype(phi.dtype),
        nonfinite=(~accepted & ~known).astype(phi.dtype),
        cost_share=_cost_share(proposed.weights),
        predicted_loss=jnp.where(accepted, after[0] - before[0], 0.0),
        predicted_cost=jnp.where(accepted, after[1] - before[1], 0.0),
        signal=proposed.signal,
        cg_iterations=proposed.cg_iterations.astype(phi.dtype),
        lam=proposal.lam,
        nu=proposal.nu,
    )
    return jnp.where(accepted, phi + alpha * proposal.step, phi), stats


def _cost_share(weights: Weights) -> Float[Array, ""]:
    costs = jnp.sum(weights.costs)
    return costs / (weights.reward + costs)
