"""What learns and one compiled meta-iteration of it, in the order of the paper's pseudocode."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from metacpo.algorithms.meta import MetaSettings, Sampler, Walk, collect, meta_update
from metacpo.algorithms.trust_region import StepStats, TrustRegionSettings
from metacpo.envs.base import Environment
from metacpo.estimation import EstimationSettings, make_batch
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout
from metacpo.solver import Case
from metacpo.tasks import Task


@dataclass(frozen=True)
class Learner:
    """Everything that stays the same during a run: what learns, where, and how."""

    env: Environment
    policy: GaussianPolicy
    estimation: EstimationSettings
    meta: MetaSettings
    inner: TrustRegionSettings
    outer: TrustRegionSettings
    constrained: bool = True


class TrainState(eqx.Module):
    """Everything that changes during a run; a checkpoint is exactly this."""

    theta: Float[Array, " n"]
    normaliser: Normaliser
    key: Key[Array, ""]
    iteration: Int32[Array, ""]


def init_state(learner: Learner, seed: int) -> TrainState:
    """The state before the first meta-iteration."""
    key, init_key = jax.random.split(jax.random.key(seed))
    policy = learner.policy
    return TrainState(policy.init(init_key), Normaliser.init(policy.observation_size), key, jnp.int32(0))


def sampler(learner: Learner, normaliser: Normaliser, tasks: Task, episodes: int) -> Sampler:
    """φ [M, n], key ↦ a batch of `episodes` episodes of φ_i on task i, all worlds in one physics call."""

    def sample_task(phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        trajectory = rollout(learner.env, learner.policy, phi, normaliser, task, key, episodes)
        return make_batch(trajectory, normaliser, task.cost_limit, learner.estimation)

    def sample(phi: Float[Array, "M n"], key: Key[Array, ""]):
        batch, stats = jax.vmap(sample_task)(phi, tasks, jax.random.split(key, phi.shape[0]))
        return (batch if learner.constrained else unconstrained(batch)), stats

    return sample


def unconstrained(batch):
    """The same data without its constraints (m = 0): CPO becomes TRPO."""
    return eqx.tree_at(
        lambda b: (b.cost_advantage, b.c), batch, (batch.cost_advantage[..., :0], batch.c[..., :0])
    )


def meta_iteration(learner: Learner, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """One meta-iteration: tasks ~ p(T), K inner updates each, one outer update. Pure; jit it once."""
    key, task_key, walk_key = jax.random.split(state.key, 3)
    meta = learner.meta
    tasks = learner.env.tasks.sample_batch(task_key, meta.tasks)
    sample = sampler(learner, state.normaliser, tasks, meta.episodes)
    walk = collect(learner.policy, state.theta, sample, walk_key, meta, learner.inner)
    theta, update = meta_update(learner.policy, state.theta, walk, meta, learner.inner, learner.outer)
    metrics = summary(learner, walk, tasks, update) | {
        "Train/PolicyStd": jnp.mean(jnp.exp(theta[-learner.env.action_size :]))
    }
    finite = jnp.all(jnp.isfinite(theta))
    theta = jnp.where(finite, theta, state.theta)
    normaliser = merge(state.normaliser, walk)
    return TrainState(theta, normaliser, key, state.iteration + 1), metrics


def merge(normaliser: Normaliser, walk: Walk) -> Normaliser:
    """The observation moments of D^0 (the meta-policy's own states) of all tasks, merged in."""
    stats = jax.tree.map(lambda x: x[0], walk.all_stats)
    mean = jnp.mean(stats.obs_mean, axis=0)
    var = jnp.mean(stats.obs_var + (stats.obs_mean - mean) ** 2, axis=0)
    return normaliser.update(jnp.float32(walk.first.weight.size), mean, var)


def summary(learner: Learner, walk: Walk, tasks: Task, outer: StepStats) -> dict[str, Array]:
    """The row of metrics.csv, by tag."""
    K, measure = learner.meta.steps, learner.estimation.cost_measure
    stats = walk.all_stats
    limited = stats.episode_cost if measure == "episode" else stats.discounted_cost
    total = jnp.sum(limited, axis=-1)
    limit = jnp.sum(tasks.cost_limit, axis=-1)
    row = {
        "Metrics/EpRet": jnp.mean(stats.episode_return[-1]),
        "Metrics/EpCost": jnp.mean(jnp.sum(stats.episode_cost[-1], -1)),
        "Metrics/DiscountedCost": jnp.mean(jnp.sum(stats.discounted_cost[-1], -1)),
        "Metrics/CostLimit": jnp.mean(limit),
        "Metrics/SatisfiedFraction": jnp.mean((total[-1] <= limit).astype(jnp.float32)),
        "Metrics/EpLen": jnp.mean(stats.length),
        "Metrics/NonFinite": jnp.sum(stats.nonfinite),
        "Meta/KL": outer.kl,
        "Meta/Case": outer.case,
        "Meta/Accepted": outer.accepted,
        "Meta/Alpha": outer.alpha,
        "Meta/CGResidual": outer.residual,
        "Meta/Edge": outer.edge,
        "Meta/LossPromised": outer.promised_loss,
    }
    for k in range(K + 1):
        row[f"Adapt/step{k}/EpRet"] = jnp.mean(stats.episode_return[k])
        row[f"Adapt/step{k}/EpCost"] = jnp.mean(jnp.sum(stats.episode_cost[k], -1))
    updates = walk.updates
    if K > 0:
        scale = 1.0 / (1.0 - learner.estimation.gamma) if measure == "discounted" else jnp.mean(stats.length)
        row |= {
            "Train/KL": jnp.mean(updates.kl),
            "Train/CostPromised": scale * jnp.mean(updates.promised_cost),
            "Train/CostRealised": jnp.mean(total[1:] - total[:-1]),
            "Train/LossPromised": jnp.mean(updates.promised_loss),
            "Train/ReturnRealised": jnp.mean(stats.episode_return[1:] - stats.episode_return[:-1]),
            "Misc/Rejected": jnp.sum(1.0 - updates.accepted),
            "Misc/Edge": jnp.sum(updates.edge),
            "Misc/CGResidual": jnp.mean(updates.residual),
            "Misc/Alpha": jnp.mean(updates.alpha),
        }
        for case in Case:
            row[f"Misc/Case/{case.name}"] = jnp.sum((updates.case == case).astype(jnp.float32))
    return row
