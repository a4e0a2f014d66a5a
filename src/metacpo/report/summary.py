"""The numbers behind tables and curves: verdicts, intervals, smoothing, axis limits. No drawing."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from metacpo.report.run import Adaptation, Run
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

    @property
    def no_cost(self) -> bool:
        """Whether no task had any cost, before or after: a figure of 0 that was measured."""
        return self.before.episode_cost == 0 == self.after.episode_cost

    def cost(self, outcome: Outcome) -> float:
        """The mean of the cost that the limit is about."""
        return outcome.discounted_cost if self.limited_cost == "discounted_cost" else outcome.episode_cost


def verdict(run: Run, split: str) -> Verdict:
    """Compare the first and the last evaluated step of a split.

    Only tasks that were evaluated at both count, so that the two columns speak of the same tasks.
    """
    adaptation = run.adaptation
    satisfied, complete = adaptation.grid(split, "satisfied"), complete_tasks(adaptation, split)

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

    steps = adaptation.steps(split)
    return Verdict(
        split=split,
        steps=int(steps[-1] - steps[0]),
        limits=limit_range(adaptation.grid(split, "cost_limit")),
        limited_cost=run.limited_cost,
        before=outcome(0),
        after=outcome(-1),
    )


def complete_tasks(adaptation: Adaptation, split: str) -> np.ndarray:
    """Which tasks of a split were evaluated at the first step and at the last."""
    satisfied = adaptation.grid(split, "satisfied")
    return np.isfinite(satisfied[:, 0]) & np.isfinite(satisfied[:, -1])


def limit_range(limits: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest limit [tasks, steps] of the last step."""
    return float(np.nanmin(limits[:, -1])), float(np.nanmax(limits[:, -1]))


@dataclass(frozen=True)
class ConstraintVerdict:
    """One of several constraints of one split, before and after adaptation; its own cost against its own limit."""

    name: str
    limits: tuple[float, float]  # the smallest and the largest among the tasks
    cost: tuple[float, float]  # means over the tasks
    within: tuple[int, int]  # tasks
    worst: tuple[float, float]  # the largest cost above its limit of any task
    tasks: int


def constraint_verdicts(run: Run, split: str) -> list[ConstraintVerdict]:
    """Every constraint of which adaptation.csv has the cost and the limit, by name; [] for a run with one."""
    adaptation = run.adaptation
    complete = complete_tasks(adaptation, split)
    verdicts = []
    for name in run.constraints:
        if not {f"cost/{name}", f"cost_limit/{name}"} <= adaptation.numbers.keys():
            continue
        cost, limit = (adaptation.grid(split, f"{of}/{name}") for of in ("cost", "cost_limit"))
        excess = _excess(adaptation, split, name, cost - limit)
        ends = [(cost[complete, step], excess[complete, step]) for step in (0, -1)]
        verdicts.append(
            ConstraintVerdict(
                name=name,
                limits=limit_range(limit),
                cost=_both(float(paid.mean()) if paid.size else math.nan for paid, _ in ends),
                within=_both(int(np.sum(over <= 0)) for _, over in ends),
                worst=_both(float(np.max(over, initial=-math.inf)) for _, over in ends),
                tasks=int(complete.sum()),
            )
        )
    return verdicts


def _excess(adaptation: Adaptation, split: str, name: str, above: np.ndarray) -> np.ndarray:
    """A constraint's cost above its limit [tasks, steps]; infinite without a valid step, whose cost nobody paid."""
    if f"excess/{name}" in adaptation.numbers:
        return adaptation.grid(split, f"excess/{name}")
    if "excess" not in adaptation.numbers:
        return above
    return np.where(np.isposinf(adaptation.grid(split, "excess")), math.inf, above)


def _both(values: Iterable[Any]) -> tuple[Any, Any]:
    before, after = values
    return before, after


def last_tenth(values: np.ndarray) -> np.ndarray:
    """The last tenth of a series, at least one entry: what a training arrived at."""
    return values[-max(1, len(values) // 10) :]


def mean_of_finite(values: np.ndarray) -> float:
    """The mean of what is finite; NaN where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def direction(before: np.ndarray, after: np.ndarray) -> int:
    """1 where `after` lies above `before`, −1 below; 0 where pairs differ by less than two standard errors."""
    gap = (after - before)[np.isfinite(after - before)]
    if not gap.size:
        return 0
    noise = float(np.std(gap, ddof=1)) / math.sqrt(gap.size) if gap.size > 1 else 0.0
    return int(np.sign(gap.mean())) if abs(float(gap.mean())) > 2 * noise else 0


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
