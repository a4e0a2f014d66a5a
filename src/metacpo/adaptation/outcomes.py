"""What came out of an evaluation: every policy of every task judged against each of its limits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float

from metacpo.adaptation.adapt import Adaptation
from metacpo.adaptation.paths import Paths
from metacpo.envs.tasks import Task
from metacpo.estimation.batch import CostMeasure, EpisodeStats

COLUMNS = (
    *("split", "task", "step", "return", "episode_cost", "discounted_cost", "cost_limit", "satisfied"),
    *("episodes_within", "deterministic_return", "deterministic_cost", "deterministic_satisfied"),
    *("excess", "deterministic_excess"),
)


@dataclass(frozen=True)
class Row:
    """One line of adaptation.csv: means over the fresh episodes of one task after `step` updates.

    Actions are drawn from the policy; `deterministic_...` says the same of its mean actions. Costs and limits of
    several constraints are summed, but nothing is decided by a sum: `excess` is the largest of the constraints' limited
    costs above their own limits (negative where all are kept), and satisfied is excess ≤ 0. Without a valid step,
    nothing was paid and nothing was shown to be safe: the excess is infinite.
    """

    split: str
    task: int
    step: int
    episode_return: float
    episode_cost: float
    discounted_cost: float
    cost_limit: float
    satisfied: bool
    episodes_within: float  # share of the episodes that kept every limit
    deterministic_return: float
    deterministic_cost: float  # the one that the limit limits
    deterministic_satisfied: bool
    excess: float
    deterministic_excess: float

    @property
    def cells(self) -> list[str | int]:
        """In the order of COLUMNS."""
        values = vars(self).values()
        return [f"{x:.6g}" if isinstance(x, float) else int(x) if isinstance(x, bool) else x for x in values]


@dataclass(frozen=True)
class Judged:
    """Policies after 0..K updates on each of M tasks; costs are summed over constraints, `excess` is not (see Row)."""

    episode_return: Float[np.ndarray, "steps M"]
    episode_cost: Float[np.ndarray, "steps M"]
    discounted_cost: Float[np.ndarray, "steps M"]
    limited_cost: Float[np.ndarray, "steps M"]
    excess: Float[np.ndarray, "steps M"]
    episodes_within: Float[np.ndarray, "steps M"]

    @property
    def satisfied(self) -> Bool[np.ndarray, "steps M"]:
        return self.excess <= 0


def judged(stats: EpisodeStats, limits: Float[Array, "M m"], cost_measure: CostMeasure) -> Judged:
    """Statistics [K + 1, M] against the limits of their tasks."""
    episode, discounted = np.asarray(stats.episode_cost), np.asarray(stats.discounted_cost)
    limited = episode if cost_measure == "episode" else discounted
    excess = np.max(limited - np.asarray(limits), axis=-1)
    return Judged(
        episode_return=np.asarray(stats.episode_return),
        episode_cost=episode.sum(axis=-1),
        discounted_cost=discounted.sum(axis=-1),
        limited_cost=limited.sum(axis=-1),
        excess=np.where(np.asarray(stats.length) > 0, excess, np.inf).astype(excess.dtype),
        episodes_within=np.asarray(stats.episodes_within),
    )


@dataclass(frozen=True)
class SplitResult:
    """One split: its tasks [M], their adaptation, and paths of the tasks `drawn` (None: no positions to draw)."""

    split: str
    tasks: Task
    adaptation: Adaptation
    drawn: tuple[int, ...]
    paths: Paths | None

    def stochastic(self, cost_measure: CostMeasure) -> Judged:
        """With actions drawn from the policies."""
        return judged(self.adaptation.stats, self.tasks.cost_limit, cost_measure)

    def deterministic(self, cost_measure: CostMeasure) -> Judged:
        """With the policies' mean actions."""
        return judged(self.adaptation.deterministic, self.tasks.cost_limit, cost_measure)


@dataclass(frozen=True)
class Evaluation:
    """Adaptation on all tasks of some splits; `cost_measure` says which cost the limits limit."""

    splits: tuple[SplitResult, ...]
    cost_measure: CostMeasure
    episodes: int  # that an update sees

    @property
    def rows(self) -> list[Row]:
        """adaptation.csv, line by line."""
        return [row for result in self.splits for row in rows_of(result, self.cost_measure)]


def rows_of(result: SplitResult, cost_measure: CostMeasure) -> Iterator[Row]:
    """The lines of one split, task by task."""
    drawn, mean = result.stochastic(cost_measure), result.deterministic(cost_measure)
    limits = np.asarray(result.tasks.cost_limit).sum(axis=-1)
    for task, step in np.ndindex(drawn.excess.shape[::-1]):
        at = step, task
        yield Row(
            split=result.split,
            task=task,
            step=step,
            episode_return=float(drawn.episode_return[at]),
            episode_cost=float(drawn.episode_cost[at]),
            discounted_cost=float(drawn.discounted_cost[at]),
            cost_limit=float(limits[task]),
            satisfied=bool(drawn.satisfied[at]),
            episodes_within=float(drawn.episodes_within[at]),
            deterministic_return=float(mean.episode_return[at]),
            deterministic_cost=float(mean.limited_cost[at]),
            deterministic_satisfied=bool(mean.satisfied[at]),
            excess=float(drawn.excess[at]),
            deterministic_excess=float(mean.excess[at]),
        )
