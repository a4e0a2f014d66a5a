"""The numbers behind tables and curves: verdicts, intervals, smoothing, axis limits. No drawing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metacpo.report.read import Run
from metacpo.statistics import Interval, mean_interval


@dataclass(frozen=True)
class Outcome:
    """A policy on one split's tasks after some number of updates: means over tasks, a count, and the worst task.

    What a run's adaptation.csv does not have is NaN: earlier versions wrote neither above nor worst.
    """

    returns: float
    episode_cost: float
    discounted_cost: float
    within: int  # tasks whose limited cost is within their limit
    tasks: int
    above: float  # share of the episodes that break a limit
    worst: float  # the largest cost above its limit of any task
    intervals: dict[str, Interval]  # of returns, the costs and above, over tasks

    @property
    def share(self) -> float:
        return self.within / self.tasks


@dataclass(frozen=True)
class Verdict:
    """One split of one run, before and after adaptation."""

    split: str
    steps: int  # updates that lie between before and after; 0 where the run does not adapt
    limits: tuple[float, float]  # the smallest and the largest cost limit among the tasks
    limited_cost: str
    before: Outcome
    after: Outcome

    def cost(self, outcome: Outcome) -> float:
        """The mean of the cost that the limit is about."""
        return outcome.discounted_cost if self.limited_cost == "discounted_cost" else outcome.episode_cost


def verdict(run: Run, split: str) -> Verdict:
    """Compare the first and the last evaluated step of a split.

    Only tasks that were evaluated at both count, so that the two columns speak of the same tasks.
    """
    adaptation = run.adaptation
    satisfied = adaptation.grid(split, "satisfied")
    complete = np.isfinite(satisfied[:, 0]) & np.isfinite(satisfied[:, -1])

    def outcome(step: int) -> Outcome:
        def values(column: str) -> np.ndarray:
            return adaptation.grid(split, column)[complete, step] if column in adaptation.numbers else np.zeros(0)

        of_tasks = {
            "returns": values("return"),
            "episode_cost": values("episode_cost"),
            "discounted_cost": values("discounted_cost"),
            "above": 1 - values("episodes_within"),
        }
        return Outcome(
            **{name: float(each.mean()) if each.size else math.nan for name, each in of_tasks.items()},
            within=int(satisfied[complete, step].sum()),
            tasks=int(complete.sum()),
            worst=float(np.max(values("excess"), initial=-math.inf)) if "excess" in adaptation.numbers else math.nan,
            intervals={name: mean_interval(each) for name, each in of_tasks.items()},
        )

    limits = adaptation.grid(split, "cost_limit")[:, -1]
    steps = adaptation.steps(split)
    return Verdict(
        split=split,
        steps=int(steps[-1] - steps[0]),
        limits=(float(np.nanmin(limits)), float(np.nanmax(limits))),
        limited_cost=run.limited_cost,
        before=outcome(0),
        after=outcome(-1),
    )


def rolling(values: np.ndarray, window: int, statistic: Callable = np.median) -> np.ndarray:
    """Centred statistic over `window` entries, fewer at the ends; NaN entries are left out of it."""
    half = window // 2
    smooth = np.full(len(values), np.nan)
    for i in range(len(values)):
        near = values[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        if near.size:
            smooth[i] = statistic(near)
    return smooth


def robust_limits(values: np.ndarray, include: np.ndarray) -> tuple[float, float]:
    """Axis limits that show the bulk of `values` and all of `include`; lone outliers stay outside.

    The bulk is what remains without the outer 2 % (at least one value) at either end. The limits follow the
    extremes as far as half the bulk's span beyond it: the slow start of a learning curve stays in view, while
    a single value far away does not flatten everything else.
    """
    ordered = np.sort(values[np.isfinite(values)])
    wanted = include[np.isfinite(include)]
    if ordered.size == 0:
        ordered = wanted if wanted.size else np.zeros(1)
    cut = max(1, math.ceil(0.02 * ordered.size)) if ordered.size >= 5 else 0
    low, high = ordered[cut], ordered[-1 - cut]
    reach = 0.5 * (high - low)
    low, high = max(ordered[0], low - reach), min(ordered[-1], high + reach)
    low, high = min([low, *wanted]), max([high, *wanted])
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def slope_through_origin(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares a of y = a·x over the finite pairs; NaN where x carries no information."""
    both = np.isfinite(x) & np.isfinite(y)
    square = float(np.sum(x[both] ** 2))
    return float(np.sum(x[both] * y[both])) / square if square > 0 else math.nan


def thin(count: int, most: int) -> slice:
    """A slice that keeps at most `most` of `count` entries, evenly spread; it bounds the report's size."""
    return slice(None, None, max(1, math.ceil(count / most)))
