"""Adapting a trained meta-policy to tasks it has not seen: the inner loop of training, nothing else."""

from dataclasses import dataclass, replace

import equinox as eqx
from jaxtyping import Array, Float, Key

from metacpo.algorithms.meta import collect
from metacpo.algorithms.rule import StepStats
from metacpo.estimation.batch import EpisodeStats
from metacpo.learner import Learner, TrainState, sampler
from metacpo.tasks import Task


@dataclass(frozen=True)
class AdaptationSettings:
    """K updates from `episodes` episodes each, on each of `tasks` tasks a split."""

    steps: int = 5
    episodes: int = 20
    tasks: int = 20


class Adaptation(eqx.Module):
    """What became of M tasks after 0..K updates.

    phi[i] is task i's adapted policy φ^K. stats[k] are means over fresh episodes of φ^k: those that update k + 1
    was computed from (they were sampled before it, so they judge φ^k fairly), and for k = K a set of its own
    that no update saw.
    """

    phi: Float[Array, "M n"]
    stats: EpisodeStats  # leading axes [K + 1, M]
    updates: StepStats  # leading axes [K, M]


def adapt_tasks(
    learner: Learner, state: TrainState, tasks: Task, key: Key[Array, ""], settings: AdaptationSettings
) -> Adaptation:
    """K constrained updates on each of M tasks from the meta-policy, observation normaliser frozen. Jit it once."""
    count = tasks.cost_limit.shape[0]
    meta = replace(learner.meta, tasks=count, steps=settings.steps, episodes=settings.episodes)
    sample = sampler(learner, state.normaliser, tasks, settings.episodes)
    walk = collect(learner.policy, state.theta, state.knobs, sample, key, meta, learner.algorithm.inner)
    return Adaptation(walk.phi, walk.stats, walk.updates)
