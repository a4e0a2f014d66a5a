"""Adapting a trained meta-policy to tasks it has not seen: the inner loop of training, nothing else."""

from dataclasses import replace

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from metacpo.algorithms.acceptance import StepStats
from metacpo.algorithms.inner_loop import run_inner_loop
from metacpo.config.sections import AdaptationSettings
from metacpo.envs.tasks import Task
from metacpo.estimation.batch import EpisodeStats, episode_stats
from metacpo.rollout import rollout
from metacpo.runtime.devices import spread
from metacpo.training.iteration import sampler
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

DETERMINISTIC_EPISODES = 5  # of mean actions: only the reset differs between them, so few tell
DETERMINISTIC = 0xDE7  # folded into the key of an adaptation for them; its updates have the key itself


class Adaptation(eqx.Module):
    """What became of M tasks after 0..K updates.

    phi[i] is task i's adapted policy φ^K. stats[k] are means over fresh episodes of φ^k: those that update k + 1
    was computed from (they were sampled before it, so they judge φ^k fairly), and for k = K a set of its own
    that no update saw. deterministic[k] is the same of φ^k's mean actions, over episodes that no update sees.
    """

    phi: Float[Array, "M n"]
    stats: EpisodeStats  # leading axes [K + 1, M]
    deterministic: EpisodeStats  # leading axes [K + 1, M]
    updates: StepStats  # leading axes [K, M]


def adapt_tasks(
    setup: TrainingSetup, state: TrainState, tasks: Task, key: Key[Array, ""], settings: AdaptationSettings
) -> Adaptation:
    """K constrained updates on each of M tasks from the meta-policy, observation normaliser frozen. Jit it once."""
    count = tasks.cost_limit.shape[0]
    meta = replace(setup.meta, tasks=count, steps=settings.steps, episodes=settings.episodes)
    sample = sampler(setup, state.normaliser, settings.episodes)
    theta, inner_state, inner = state.theta, state.inner_state, setup.algorithm.inner
    loop = run_inner_loop(setup.policy, theta, inner_state, sample, tasks, key, meta, inner)
    assert loop.path is not None
    deterministic = _mean_actions(setup, state, tasks, loop.path, jax.random.fold_in(key, DETERMINISTIC))
    return Adaptation(loop.phi, loop.stats, deterministic, loop.updates)


def _mean_actions(
    setup: TrainingSetup, state: TrainState, tasks: Task, path: Float[Array, "steps M n"], key: Key[Array, ""]
) -> EpisodeStats:
    """What every policy of the path earns and costs without its noise, [K + 1, M]; one of its steps after another."""

    def judge(phi: Float[Array, " n"], task: Task, key: Key[Array, ""]) -> EpisodeStats:
        env, policy, normaliser = setup.env, setup.policy, state.normaliser
        data = rollout(env, policy, phi, normaliser, task, key, DETERMINISTIC_EPISODES, deterministic=True)
        return episode_stats(data, task.cost_limit, setup.estimation)

    def of_tasks(path: Float[Array, "steps M n"], tasks: Task, keys: Key[Array, "steps M"]) -> EpisodeStats:
        return jax.lax.map(lambda step: jax.vmap(judge)(step[0], tasks, step[1]), (path, keys))

    keys = jax.random.split(key, path.shape[:2])
    return spread(of_tasks, in_axes=(1, 0, 1), out_axes=1)(path, tasks, keys)
