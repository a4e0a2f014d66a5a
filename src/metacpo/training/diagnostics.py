"""The numbers of a meta-iteration: what a row of metrics.csv says of its data and of its updates."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.algorithms.acceptance import StepStats
from metacpo.algorithms.finite import masked_mean, task_weights
from metacpo.algorithms.inner_loop import InnerLoop
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.meta_update import OuterStats, adapted_cost
from metacpo.algorithms.objectives import PIDLagrangian
from metacpo.envs.tasks import Task
from metacpo.estimation.batch import EpisodeStats
from metacpo.estimation.measures import limited
from metacpo.solver import Case
from metacpo.training.setup import TrainingSetup
from metacpo.training.tags import of_constraint


def limited_cost(setup: TrainingSetup, stats: EpisodeStats) -> Float[Array, "*M m"]:
    """The cost that the limit limits."""
    return limited(setup.estimation.cost_measure, stats.episode_cost, stats.discounted_cost)


def adapted_metrics(setup: TrainingSetup, loop: InnerLoop, tasks: Task) -> dict[str, Array]:
    """What the policies earned and cost on the tasks of this iteration, adapted (φ^K) and on the way there."""
    stats = loop.stats
    adapted = jax.tree.map(lambda x: x[-1], stats)
    excess = jnp.max(limited_cost(setup, stats) - tasks.cost_limit, axis=-1)  # [K + 1, M], above the limit
    excess = jnp.where(stats.length > 0, excess, jnp.inf)  # without a valid step nothing was shown to be safe
    within, before = excess[-1] <= 0, excess[:-1]
    task_weight = task_weights(adapted.length > 0)
    row = {
        "Metrics/EpRet": masked_mean(adapted.episode_return, task_weight),
        "Metrics/EpCost": masked_mean(jnp.sum(adapted.episode_cost, -1), task_weight),
        "Metrics/DiscountedCost": masked_mean(jnp.sum(adapted.discounted_cost, -1), task_weight),
        "Metrics/CostLimit": jnp.mean(jnp.sum(tasks.cost_limit, axis=-1)),
        "Metrics/SatisfiedFraction": jnp.mean(within.astype(jnp.float32)),
        "Metrics/EpLen": jnp.mean(stats.length),
        "Metrics/NonFinite": jnp.sum(stats.nonfinite),
    }
    if setup.meta.steps:
        row["Metrics/SatisfiedWhileAdapting"] = jnp.mean((before <= 0).astype(jnp.float32))
        paid = jnp.where(jnp.isinf(before), 0.0, jnp.maximum(before, 0.0))
        row["Metrics/ExcessWhileAdapting"] = jnp.mean(jnp.sum(paid, axis=0))
    for k in range(setup.meta.steps + 1):
        row[f"Adapt/step{k}/EpRet"] = jnp.mean(stats.episode_return[k])
        row[f"Adapt/step{k}/EpCost"] = jnp.mean(jnp.sum(stats.episode_cost[k], -1))
        row[f"Adapt/step{k}/DiscountedCost"] = jnp.mean(jnp.sum(stats.discounted_cost[k], -1))
    return row | constraint_metrics(setup.env.cost_names, adapted, tasks)


def constraint_metrics(names: tuple[str, ...], adapted: EpisodeStats, tasks: Task) -> dict[str, Array]:
    """Cost and limit of each of several constraints: no sum says whether one of them is broken."""
    if len(names) == 1:
        return {}
    task_weight, row = task_weights(adapted.length > 0), {}
    for i, name in enumerate(names):
        row[of_constraint("Metrics/EpCost", name)] = masked_mean(adapted.episode_cost[:, i], task_weight)
        row[of_constraint("Metrics/DiscountedCost", name)] = masked_mean(adapted.discounted_cost[:, i], task_weight)
        row[of_constraint("Metrics/CostLimit", name)] = jnp.mean(tasks.cost_limit[:, i])
    return row


def per_episode(setup: TrainingSetup, stats: EpisodeStats) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What makes a change of L_R one of the return, and one of c one of the limited cost (docs/conventions.md)."""
    length, discounted = jnp.mean(stats.length), jnp.mean(stats.discounted_length)
    return -length, limited(setup.estimation.cost_measure, length, discounted)


def inner_metrics(setup: TrainingSetup, loop: InnerLoop) -> dict[str, Array]:
    """What the inner updates predicted and what came true, per episode; nothing if K = 0."""
    if setup.meta.steps == 0:
        return {}
    updates, stats = loop.updates, loop.stats
    to_return, to_cost = per_episode(setup, stats)
    cost = jnp.mean(jnp.sum(limited_cost(setup, stats), axis=-1), axis=-1)
    earned = jnp.mean(stats.episode_return, axis=-1)
    changes = {
        "CostPredicted": to_cost * jnp.mean(jnp.sum(updates.predicted_cost, axis=-1), axis=-1),
        "CostActual": cost[1:] - cost[:-1],
        "ReturnPredicted": to_return * jnp.mean(updates.predicted_loss, axis=-1),
        "ReturnActual": earned[1:] - earned[:-1],
    }
    row = {f"Train/{name}": jnp.mean(change) for name, change in changes.items()}
    row |= {f"Adapt/step{k + 1}/{name}": x[k] for name, x in changes.items() for k in range(setup.meta.steps)}
    row |= {
        "Train/KL": jnp.mean(updates.kl),
        "Misc/TrustRegion": jnp.mean(updates.delta),
        "Misc/Rejected": jnp.sum(1.0 - updates.accepted),
        "Misc/DerivativeClipped": jnp.sum(updates.derivative_clipped),
        "Misc/CGResidual": jnp.mean(updates.residual),
        "Misc/CGIterations": jnp.mean(updates.cg_iterations),
        "Misc/Alpha": jnp.mean(updates.alpha),
        "Misc/CostShare": jnp.mean(updates.cost_share),
        "Misc/SignalReturn": jnp.mean(updates.signal.loss),
        "Misc/SignalCost": jnp.mean(updates.signal.cost) if updates.signal.cost.size else jnp.float32(1),
    }
    row |= multipliers("Misc", updates)
    for case in Case:
        row[f"Misc/Case/{case.name}"] = jnp.sum((updates.case == case).astype(jnp.float32))
    return row


def multipliers(group: str, updates: StepStats) -> dict[str, Array]:
    """The mean λ, and the mean ν over constraints, of updates whose step has them."""
    row = {}
    if updates.lam is not None:
        row[f"{group}/Lambda"] = jnp.mean(updates.lam)
    if updates.nu is not None and updates.nu.size:
        row[f"{group}/Nu"] = jnp.mean(updates.nu)
    return row


def inner_state_metrics(setup: TrainingSetup, inner_state: InnerState) -> dict[str, Array]:
    """The numbers beside θ, where the algorithm has them."""
    row = {}
    if "scale" in setup.algorithm.learned:
        row["Meta/StepScale"] = jnp.exp(inner_state.log_scale)
    if isinstance(setup.algorithm.inner.objective, PIDLagrangian):
        row["Metrics/LagrangeMultiplier"] = jnp.mean(inner_state.multiplier)
    return row


def outer_predictions(setup: TrainingSetup, loop: InnerLoop, outer: StepStats) -> dict[str, Array]:
    """What the outer update predicts of the adapted policies, means over tasks, per episode.

    The cost is the limited one, its constraints summed.
    """
    to_return, to_cost = per_episode(setup, loop.stats)
    algorithm, (tasks, m) = setup.algorithm, loop.last.c.shape
    foresees = algorithm.gradient.predicts_return or setup.meta.steps == 0
    if setup.meta.steps == 0:
        algorithm = replace(algorithm, constraint_on="adapted")
    return {
        "Meta/NextReturnPredicted": to_return * outer.predicted_loss if foresees else jnp.float32(jnp.nan),
        "Meta/NextCostPredicted": to_cost * adapted_cost(outer.predicted_cost, algorithm, tasks, m),
    }


def fault_metrics(
    loop: InnerLoop, outer: StepStats, finite: Bool[Array, ""], lost: Float[Array, ""]
) -> dict[str, Array]:
    """How much was left out because it was not finite; `finite`: the outer update was; `lost`: of the normaliser."""
    row = {
        "Misc/CriticNonFinite": jnp.sum(loop.stats.critic_nonfinite),
        "Misc/ObservationsLeftOut": lost,
        "Misc/TasksLeftOut": jnp.sum((loop.task_weight == 0).astype(jnp.float32)),
        "Meta/NonFinite": jnp.maximum(outer.nonfinite, 1.0 - finite.astype(jnp.float32)),
    }
    if loop.updates.alpha.shape[0]:
        row["Misc/NonFiniteUpdates"] = jnp.sum(loop.updates.nonfinite)
    return row


def outer_metrics(stats: OuterStats) -> dict[str, Array]:
    """What became of the meta-policy's own update."""
    outer = stats.step
    return {
        "Meta/AgreementReturn": stats.agreement[0],
        "Meta/AgreementCost": stats.agreement[1],
        "Meta/SignalReturn": outer.signal.loss,
        "Meta/SignalCost": jnp.mean(outer.signal.cost) if outer.signal.cost.size else jnp.float32(1),
        "Meta/KL": outer.kl,
        "Meta/TrustRegion": outer.delta,
        "Meta/Case": outer.case,
        "Meta/Accepted": outer.accepted,
        "Meta/Alpha": outer.alpha,
        "Meta/CGResidual": outer.residual,
        "Meta/CGIterations": outer.cg_iterations,
        "Meta/DerivativeClipped": outer.derivative_clipped,
    } | multipliers("Meta", outer)
