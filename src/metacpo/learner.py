"""What learns and one compiled meta-iteration of it, in the order of the paper's pseudocode."""

from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from metacpo.algorithms.aims import Multiplier
from metacpo.algorithms.finite import all_finite, mean_of_sound, shares
from metacpo.algorithms.knobs import Knobs
from metacpo.algorithms.meta import Algorithm, MetaSettings, OuterStats, Sampler, adapted_cost, collect, meta_update
from metacpo.algorithms.meta_gradient import Walk
from metacpo.algorithms.rule import StepStats
from metacpo.envs.base import Environment
from metacpo.estimation import Batch, EstimationSettings, make_batch, shared_cost_values
from metacpo.estimation.batch import EpisodeStats
from metacpo.moments import drift, merged
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout
from metacpo.solver import Case
from metacpo.tasks import Task, TaskDistribution


@dataclass(frozen=True)
class Learner:
    """Everything that stays the same during a run: what learns, where, and how."""

    env: Environment
    tasks: TaskDistribution
    policy: GaussianPolicy
    estimation: EstimationSettings
    meta: MetaSettings
    algorithm: Algorithm
    multiplier: float = 1.0  # the first Lagrange multiplier, if the algorithm has one


@dataclass(frozen=True)
class WarmupSettings:
    """Pooled tasks (K = 0) for the first iterations: K + 1 times cheaper while there is nothing to adapt yet.

    M tasks with B episodes each; max_kl and damping are those of the outer step meanwhile, and confidence its
    `outer_confidence`: a policy that must still learn to move needs the whole limit for it.
    """

    iterations: int = 0
    tasks: int = 20
    episodes: int = 8
    max_kl: float = 0.03
    damping: float = 0.3
    confidence: float = 0.5


def warmup(learner: Learner, settings: WarmupSettings) -> Learner:
    """The learner of the warm-up: the same, but without inner steps, and with a constraint on the mean over tasks."""
    meta = replace(learner.meta, tasks=settings.tasks, steps=0, episodes=settings.episodes)
    rule = learner.algorithm.outer
    region = replace(rule.region, max_kl=settings.max_kl, damping=settings.damping)
    algorithm = replace(learner.algorithm, outer=replace(rule, region=region), per_task=False)
    estimation = replace(learner.estimation, outer_confidence=settings.confidence)
    return replace(learner, meta=meta, algorithm=algorithm, estimation=estimation)


class Outlook(eqx.Module):
    """Where the last outer update started and the change it promised, for the next iteration's data to judge.

    Means over tasks, per episode; cost is the limited one, its constraints summed. NaN before the first update.
    """

    episode_return: Float[Array, ""]
    cost: Float[Array, ""]
    promised_return: Float[Array, ""]
    promised_cost: Float[Array, ""]


class TrainState(eqx.Module):
    """Everything that changes during a run; a checkpoint is exactly this."""

    theta: Float[Array, " n"]
    knobs: Knobs
    normaliser: Normaliser
    key: Key[Array, ""]
    iteration: Int32[Array, ""]
    outlook: Outlook


def init_state(learner: Learner, seed: int) -> TrainState:
    """The state before the first meta-iteration."""
    key, init_key = jax.random.split(jax.random.key(seed))
    policy = learner.policy
    outlook = Outlook(*[jnp.float32(jnp.nan)] * 4)
    m = len(learner.tasks.cost_limit) if learner.algorithm.reads_costs else 0
    return TrainState(
        theta=policy.init(init_key, jnp.float32),
        knobs=Knobs.init(m, learner.multiplier, jnp.float32),
        normaliser=Normaliser.init(policy.observation_size, jnp.float32),
        key=key,
        iteration=jnp.int32(0),
        outlook=outlook,
    )


def meta_iteration(learner: Learner, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """One meta-iteration: tasks ~ p(T), K inner updates each, one outer update. Pure; jit it once.

    Returns the next state and the row of metrics.csv. A non-finite update leaves the parameters as they were, and the
    row counts it.
    """
    key, task_key, walk_key = jax.random.split(state.key, 3)
    meta, policy = learner.meta, learner.policy
    tasks = learner.tasks.sample_batch(task_key, meta.tasks)
    sample = sampler(learner, state.normaliser, tasks, meta.episodes)
    walk = collect(policy, state.theta, state.knobs, sample, walk_key, meta, learner.algorithm.inner)
    theta, knobs, outer = meta_update(policy, state.theta, state.knobs, walk, learner.algorithm)
    finite = all_finite((theta, knobs))
    theta, knobs = jax.tree.map(partial(jnp.where, finite), (theta, knobs), (state.theta, state.knobs))
    outlook = outlook_of(learner, walk, outer.step)
    normaliser, lost = merged(state.normaliser, walk)
    metrics = adapted_metrics(learner, walk, tasks) | inner_metrics(learner, walk)
    metrics |= outer_metrics(outer, state.outlook, outlook)
    metrics |= fault_metrics(walk, outer.step, finite, lost)
    metrics |= knob_metrics(learner, knobs)
    metrics["Train/PolicyStd"] = jnp.mean(jnp.exp(policy.log_std(theta)))
    metrics["Misc/NormaliserDrift"] = drift(state.normaliser, walk)
    return TrainState(theta, knobs, normaliser, key, state.iteration + 1, outlook), metrics


def warmup_iteration(learner: Learner, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """`meta_iteration` of a warm-up's learner, under a name of its own where compilations are counted."""
    return meta_iteration(learner, state)


def sampler(learner: Learner, normaliser: Normaliser, tasks: Task, episodes: int) -> Sampler:
    """φ [M, n], key ↦ a batch of `episodes` episodes of φ_i on task i, all worlds in one physics call."""

    estimation, shared = learner.estimation, learner.algorithm.global_critic

    def roll(phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(learner.env, learner.policy, phi, normaliser, task, key, episodes)

    def sample(phi: Float[Array, "M n"], key: Key[Array, ""]):
        trajectories = jax.vmap(roll)(phi, tasks, jax.random.split(key, phi.shape[0]))
        values = shared_cost_values(trajectories, normaliser, estimation) if shared else None
        estimate = jax.vmap(lambda D, limit, V: make_batch(D, normaliser, limit, estimation, V))
        batch, stats = estimate(trajectories, tasks.cost_limit, values)
        return (batch if learner.algorithm.reads_costs else unconstrained(batch)), stats

    return sample


def unconstrained(batch: Batch) -> Batch:
    """The same data without its constraints: m = 0."""
    none = (batch.cost_advantage[..., :0], batch.c[..., :0])
    return eqx.tree_at(lambda b: (b.cost_advantage, b.c), batch, none)


def limited_cost(learner: Learner, stats: EpisodeStats) -> Float[Array, "*M m"]:
    """The cost that the limit limits."""
    return stats.episode_cost if learner.estimation.cost_measure == "episode" else stats.discounted_cost


def adapted_metrics(learner: Learner, walk: Walk, tasks: Task) -> dict[str, Array]:
    """What the policies earned and cost on the tasks of this iteration, adapted (φ^K) and on the way there."""
    stats = walk.stats
    adapted = jax.tree.map(lambda x: x[-1], stats)
    excess = jnp.max(limited_cost(learner, stats) - tasks.cost_limit, axis=-1)  # [K + 1, M], above the limit
    excess = jnp.where(stats.length > 0, excess, jnp.inf)  # without a valid step nothing was shown to be safe
    within, before = excess[-1] <= 0, excess[:-1]
    share = shares(adapted.length > 0)
    row = {
        "Metrics/EpRet": mean_of_sound(adapted.episode_return, share),
        "Metrics/EpCost": mean_of_sound(jnp.sum(adapted.episode_cost, -1), share),
        "Metrics/DiscountedCost": mean_of_sound(jnp.sum(adapted.discounted_cost, -1), share),
        "Metrics/CostLimit": jnp.mean(jnp.sum(tasks.cost_limit, axis=-1)),
        "Metrics/SatisfiedFraction": jnp.mean(within.astype(jnp.float32)),
        "Metrics/EpLen": jnp.mean(stats.length),
        "Metrics/NonFinite": jnp.sum(stats.nonfinite),
    }
    if learner.meta.steps:
        row["Metrics/SatisfiedWhileAdapting"] = jnp.mean((before <= 0).astype(jnp.float32))
        paid = jnp.where(jnp.isinf(before), 0.0, jnp.maximum(before, 0.0))
        row["Metrics/ExcessWhileAdapting"] = jnp.mean(jnp.sum(paid, axis=0))
    for k in range(learner.meta.steps + 1):
        row[f"Adapt/step{k}/EpRet"] = jnp.mean(stats.episode_return[k])
        row[f"Adapt/step{k}/EpCost"] = jnp.mean(jnp.sum(stats.episode_cost[k], -1))
        row[f"Adapt/step{k}/DiscountedCost"] = jnp.mean(jnp.sum(stats.discounted_cost[k], -1))
    return row


def per_episode(learner: Learner, stats: EpisodeStats) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What turns a change of L_R into one of the return, and one of c into one of the limited cost (DESIGN.md §3)."""
    length = jnp.mean(stats.length)
    discounted = learner.estimation.cost_measure == "discounted"
    return -length, jnp.mean(stats.discounted_length) if discounted else length


def inner_metrics(learner: Learner, walk: Walk) -> dict[str, Array]:
    """What the inner updates promised and what came true, per episode; nothing if K = 0."""
    if learner.meta.steps == 0:
        return {}
    updates, stats = walk.updates, walk.stats
    to_return, to_cost = per_episode(learner, stats)
    cost = jnp.mean(jnp.sum(limited_cost(learner, stats), axis=-1), axis=-1)
    earned = jnp.mean(stats.episode_return, axis=-1)
    changes = {
        "CostPromised": to_cost * jnp.mean(jnp.sum(updates.promised_cost, axis=-1), axis=-1),
        "CostRealised": cost[1:] - cost[:-1],
        "ReturnPromised": to_return * jnp.mean(updates.promised_loss, axis=-1),
        "ReturnRealised": earned[1:] - earned[:-1],
    }
    row = {f"Train/{name}": jnp.mean(change) for name, change in changes.items()}
    row |= {f"Adapt/step{k + 1}/{name}": x[k] for name, x in changes.items() for k in range(learner.meta.steps)}
    row |= {
        "Train/KL": jnp.mean(updates.kl),
        "Misc/TrustRegion": jnp.mean(updates.delta),
        "Misc/Rejected": jnp.sum(1.0 - updates.accepted),
        "Misc/Edge": jnp.sum(updates.edge),
        "Misc/CGResidual": jnp.mean(updates.residual),
        "Misc/Alpha": jnp.mean(updates.alpha),
        "Misc/CostShare": jnp.mean(updates.cost_share),
        "Misc/SignalReturn": jnp.mean(updates.signal.loss),
        "Misc/SignalCost": jnp.mean(updates.signal.cost) if updates.signal.cost.size else jnp.float32(1),
    }
    for case in Case:
        row[f"Misc/Case/{case.name}"] = jnp.sum((updates.case == case).astype(jnp.float32))
    return row


def knob_metrics(learner: Learner, knobs: Knobs) -> dict[str, Array]:
    """The numbers beside θ, where the algorithm has them."""
    row = {}
    if "scale" in learner.algorithm.learned:
        row["Meta/StepScale"] = jnp.exp(knobs.log_scale)
    if isinstance(learner.algorithm.inner.aim, Multiplier):
        row["Metrics/LagrangeMultiplier"] = jnp.mean(knobs.multiplier)
    return row


def outlook_of(learner: Learner, walk: Walk, outer: StepStats) -> Outlook:
    """What the outer update promises, and the adapted figures that it starts from."""
    adapted = jax.tree.map(lambda x: x[-1], walk.stats)
    to_return, to_cost = per_episode(learner, walk.stats)
    algorithm, (tasks, m) = learner.algorithm, walk.last.c.shape
    foresees = algorithm.gradient != "regret_bound" or learner.meta.steps == 0
    if learner.meta.steps == 0:
        algorithm = replace(algorithm, gradient="exact", held="adapted")
    return Outlook(
        episode_return=jnp.mean(adapted.episode_return),
        cost=jnp.mean(jnp.sum(limited_cost(learner, adapted), axis=-1)),
        promised_return=to_return * outer.promised_loss if foresees else jnp.float32(jnp.nan),
        promised_cost=to_cost * adapted_cost(outer.promised_cost, algorithm, tasks, m),
    )


def fault_metrics(walk: Walk, outer: StepStats, finite: Bool[Array, ""], lost: Float[Array, ""]) -> dict[str, Array]:
    """How much was left out because it was not finite; `finite`: the outer update was; `lost`: of the normaliser."""
    row = {
        "Misc/CriticNonFinite": jnp.sum(walk.stats.critic_nonfinite),
        "Misc/ObservationsLeftOut": lost,
        "Misc/TasksLeftOut": jnp.sum((walk.share == 0).astype(jnp.float32)),
        "Meta/NonFinite": jnp.maximum(outer.nonfinite, 1.0 - finite.astype(jnp.float32)),
    }
    if walk.updates.alpha.shape[0]:
        row["Misc/NonFiniteUpdates"] = jnp.sum(walk.updates.nonfinite)
    return row


def outer_metrics(stats: OuterStats, before: Outlook, now: Outlook) -> dict[str, Array]:
    """What became of the meta-policy's own update, and of the promises of the one before."""
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
        "Meta/Edge": outer.edge,
        "Meta/ReturnPromised": before.promised_return,
        "Meta/ReturnRealised": now.episode_return - before.episode_return,
        "Meta/CostPromised": before.promised_cost,
        "Meta/CostRealised": now.cost - before.cost,
    }
