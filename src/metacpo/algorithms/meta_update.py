"""The outer update: one step of the meta-policy, as any other update, on the objective of the inner loop.

    F(θ) = mean_i F_i(θ),   G(θ) = mean_i c_i(θ), or every c_i(θ)          meta_objective.py
    θ' = θ + α · x(∇F, ∇G, G, H, δ_θ)                                      H: mean KL at θ on the states of D^0

It sees the data of the inner loop, the α and what of the data is signal as constants. K = 0 makes the same code an
ordinary algorithm on pooled tasks: φ^K = θ, D^K = D^0.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.acceptance import StepStats, none_where
from metacpo.algorithms.algorithm import Algorithm
from metacpo.algorithms.inner_loop import InnerLoop
from metacpo.algorithms.inner_state import InnerState, extended, pack, unpack
from metacpo.algorithms.meta_gradients import Exact
from metacpo.algorithms.meta_objective import MetaObjective
from metacpo.algorithms.policy_update import UpdateData, composed, line_search
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.trust_region import contrast_gradients, metric
from metacpo.estimation import Batch, kl
from metacpo.policies import Policy


class OuterStats(eqx.Module):
    """What became of an outer update; agreement: of two halves of the tasks about F and G, see `MetaRows`."""

    step: StepStats
    agreement: Float[Array, " 2"]


def meta_update(
    policy: Policy, theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop, algorithm: Algorithm
) -> tuple[Float[Array, " n"], InnerState, OuterStats]:
    """The outer step with its line search: KL at θ, and (F, G) recomputed through all K steps.

    Without inner steps the update's own inner state goes on from here; else what of it is learned has moved with θ.
    """
    K, region, learned = loop.updates.alpha.shape[0], algorithm.outer.region, algorithm.learned
    objective = MetaObjective(
        policy=policy,
        inner=algorithm.inner,
        gradient=algorithm.gradient if K else Exact(),
        constraint_on=algorithm.constraint_on if K else "adapted",
        per_task=algorithm.per_task,
        learned=learned,
    )
    packed = pack(theta, inner_state, learned)
    found = objective.rows(packed, theta, inner_state, loop)
    weights, after = algorithm.outer.objective(found.G, inner_state)
    states = pooled(valid_data(loop))
    H = extended(metric(policy, theta, states, region), packed, theta.shape[0])
    # Through inner steps the noise is not measured, which would take as many more passes back. That of pooled data is.
    contrasts = None if K else _contrasts(policy, theta, states, found.b)
    signal = Signal.full(found.G.shape[0], theta.dtype) if K else None
    data = UpdateData(found.g, found.b, found.G, H, contrasts)
    proposed = composed(data, weights, jnp.ones((), theta.dtype), signal, algorithm.outer)
    proposed = none_where(~jnp.any(found.task_weight > 0), proposed)  # no constraint is not the same as no task

    def divergence(new: Float[Array, " k"]) -> Float[Array, ""]:
        return kl(policy, theta, unpack(new, inner_state, learned)[0], states)

    def value(new: Float[Array, " k"]):
        return objective(new, theta, inner_state, loop)

    packed, stats = line_search(packed, proposed, value, divergence, algorithm.outer, found.value)
    theta, moved = unpack(packed, inner_state, learned)
    lost = jnp.any((found.task_weight == 0) & (loop.task_weight > 0))  # a gradient that was not finite
    stats = eqx.tree_at(lambda s: s.nonfinite, stats, jnp.maximum(stats.nonfinite, lost.astype(theta.dtype)))
    return theta, moved if K else after, OuterStats(stats, found.agreement)


def _contrasts(
    policy: Policy, theta: Float[Array, " n"], states: Batch, b: Float[Array, "G k"]
) -> Float[Array, "C r k"]:
    """The contrasts of halves of every task's episodes, for (g, b); 0 for the learned inner state, on which
    nothing depends, and for constraints that are one task's own."""
    own = contrast_gradients(policy, theta, states)
    C, rows, n = own.shape
    own = own if rows == 1 + b.shape[0] else jnp.zeros((C, 1 + b.shape[0], n), own.dtype).at[:, 0].set(own[:, 0])
    return jnp.pad(own, ((0, 0), (0, 0), (0, b.shape[1] - n)))


def adapted_cost(predicted: Float[Array, " G"], algorithm: Algorithm, tasks: int, m: int) -> Float[Array, ""]:
    """Of a predicted change of G what concerns the adapted policies: mean over tasks, summed over the m costs.

    0 without costs, NaN where G says nothing of the adapted policies.
    """
    if m == 0:
        return jnp.zeros((), predicted.dtype)
    if predicted.shape[0] == 0 or algorithm.constraint_on == "start":
        return jnp.asarray(jnp.nan, predicted.dtype)
    each = predicted.reshape(tasks if algorithm.per_task else 1, -1, m)  # tasks, steps 0..K or the last alone, costs
    return jnp.mean(jnp.sum(each[:, -1], axis=-1))


def valid_data(loop: InnerLoop) -> Batch:
    """D^0 of all tasks, each by its weight."""
    first, task_weight = loop.first, loop.task_weight[:, None]
    return eqx.tree_at(
        lambda D: (D.weight, D.cost_weight), first, (task_weight * first.weight, task_weight * first.cost_weight)
    )


def pooled(batch: Batch) -> Batch:
    """The data of M tasks as that of one, every task with the same weight. c is averaged."""
    M, N = batch.weight.shape

    def flat(x: Array) -> Array:
        return x.reshape(M * N, *x.shape[2:])

    return Batch(
        z=flat(batch.z),
        action=flat(batch.action),
        log_prob=flat(batch.log_prob),
        reward_advantage=flat(batch.reward_advantage),
        cost_advantage=flat(batch.cost_advantage),
        weight=flat(batch.weight) / M,
        cost_weight=flat(batch.cost_weight) / M,
        contrast=flat(batch.contrast),
        c=jnp.mean(batch.c, axis=0),
        margin=jnp.sqrt(jnp.sum(batch.margin**2, axis=0)) / M,
        outer_margin=jnp.sqrt(jnp.sum(batch.outer_margin**2, axis=0)) / M,
    )
