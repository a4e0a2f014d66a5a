"""What came out of an evaluation: every policy of every task judged against each of its limits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float

from metacpo.adaptation.adapt import Adaptation
from metacpo.adaptation.paths import Paths
from metacpo.envs.tasks import Task
from metacpo.estimation.batch import EpisodeStats
from metacpo.estimation.measures import CostMeasure, limited

COLUMNS = (  # of adaptation.csv, where there is one constraint
    *("split", "task", "step", "return", "episode_cost", "discounted_cost", "cost_limit", "satisfied"),
    *("episodes_within", "deterministic_return", "deterministic_cost", "deterministic_satisfied"),
    *("excess", "deterministic_excess"),
)
OF_EACH = ("cost", "cost_limit", "deterministic_cost")  # columns more for each of several constraints


def columns(cost_names: tuple[str, ...]) -> tuple[str, ...]:
    """Of adaptation.csv for these constraints: where they are several, each has columns of its own at the end."""
    several = cost_names if len(cost_names) > 1 else ()
    return (*COLUMNS, *(f"{column}/{name}" for name in several for column in OF_EACH))


@dataclass(frozen=True)
class ConstraintRow:
    """One constraint in a line of adaptation.csv; the costs are those that its limit limits."""

    name: str
    cost: float
    cost_limit: float
    deterministic_cost: float


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
    constraints: tuple[ConstraintRow, ...]

    @property
    def cells(self) -> list[str | int]:
        """In the order of `columns`."""
        values = [value for name, value in vars(self).items() if name != "constraints"]
        if len(self.constraints) > 1:
            values += [getattr(each, column) for each in self.constraints for column in OF_EACH]
        return [f"{x:.6g}" if isinstance(x, float) else int(x) if isinstance(x, bool) else x for x in values]


@dataclass(frozen=True)
class Judged:
    """Policies after 0..K updates on each of M tasks; costs are summed over constraints where no m says otherwise."""

    episode_return: Float[np.ndarray, "steps M"]
    episode_cost: Float[np.ndarray, "steps M"]
    discounted_cost: Float[np.ndarray, "steps M"]
    limited_cost: Float[np.ndarray, "steps M"]
    costs: Float[np.ndarray, "steps M m"]  # the limited one of each constraint
    excesses: Float[np.ndarray, "steps M m"]  # above the constraint's own limit; infinite without a valid step
    episodes_within: Float[np.ndarray, "steps M"]

    @property
    def excess(self) -> Float[np.ndarray, "steps M"]:
        """The largest of the constraints' (see Row)."""
        return np.max(self.excesses, axis=-1)

    @property
    def satisfied(self) -> Bool[np.ndarray, "steps M"]:
        return self.excess <= 0


def judged(stats: EpisodeStats, limits: Float[Array, "M m"], cost_measure: CostMeasure) -> Judged:
    """Statistics [K + 1, M] against the limits of their tasks."""
    episode, discounted = np.asarray(stats.episode_cost), np.asarray(stats.discounted_cost)
    costs = limited(cost_measure, episode, discounted)
    excesses = costs - np.asarray(limits)
    shown = np.asarray(stats.length)[..., None] > 0
    return Judged(
        episode_return=np.asarray(stats.episode_return),
        episode_cost=episode.sum(axis=-1),
        discounted_cost=discounted.sum(axis=-1),
        limited_cost=costs.sum(axis=-1),
        costs=costs,
        excesses=np.where(shown, excesses, np.inf).astype(excesses.dtype),
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
    """Adaptation on all tasks of some splits; `cost_measure` says which cost the limits limit, `cost_names` what it is
    that each constraint counts."""

    splits: tuple[SplitResult, ...]
    cost_measure: CostMeasure
    cost_names: tuple[str, ...]
    episodes: int  # that an update sees

    @property
    def rows(self) -> list[Row]:
        """adaptation.csv, line by line."""
        return [row for result in self.splits for row in self.rows_of(result)]

    def rows_of(self, result: SplitResult) -> Iterator[Row]:
        """The lines of one split, task by task."""
        yield from _rows(result, self.cost_measure, self.cost_names)


def _rows(result: SplitResult, cost_measure: CostMeasure, cost_names: tuple[str, ...]) -> Iterator[Row]:
    drawn, mean = result.stochastic(cost_measure), result.deterministic(cost_measure)
    each = np.asarray(result.tasks.cost_limit)
    limits = each.sum(axis=-1)
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
            constraints=tuple(
                ConstraintRow(name, *map(float, (drawn.costs[at][i], each[task, i], mean.costs[at][i])))
                for i, name in enumerate(cost_names)
            ),
        )
