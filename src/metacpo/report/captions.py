"""Sentences that follow from a run's numbers. Plain text, but for `lead`, which is HTML."""

from collections.abc import Sequence
from html import escape

import numpy as np

from metacpo.report.measures import Measure
from metacpo.report.run import Run
from metacpo.report.summary import (
    Verdict,
    complete_tasks,
    constraint_verdicts,
    direction,
    last_tenth,
    mean_of_finite,
    verdict,
)
from metacpo.report.words import change, count_words, limit_words, number, percent, short

NO_COST = "No episode had any cost: 0 is what was measured."
VERBS = {1: "raises", -1: "lowers", 0: "does not clearly change"}
REPAIRS = ("INFEASIBLE", "RECOVERING")  # cases of steps that work on a broken limit


def learning_words(runs: Sequence[Run], measure: Measure) -> str:
    """What the end of the training shows of a measure: before against after adaptation, and against its limit."""
    found = [(run, {stage: last_tenth(x) for stage, x in measure.series(run).items()}) for run in runs]
    found = [(run, tail) for run, tail in found if "after" in tail]
    if not found:
        return ""
    if measure.column != "return":
        logged = np.concatenate([x for run, _ in found for x in measure.series(run).values()])
        logged = logged[np.isfinite(logged)]
        if logged.size and not logged.any():
            return NO_COST
    return (_one_run if len(found) == 1 else _many_runs)(found, measure)


def _one_run(found: Sequence[tuple[Run, dict[str, np.ndarray]]], measure: Measure) -> str:
    (run, tail) = found[0]
    after = mean_of_finite(tail["after"])
    words = f"In the last {count_words(len(tail['after']), 'meta-iteration')}, "
    if "before" in tail:
        before, verb = mean_of_finite(tail["before"]), VERBS[direction(tail["before"], tail["after"])]
        updates = count_words(run.last_step, "update")
        words += f"adaptation ({updates}) {verb} it: {number(before)} before, {number(after)} after"
    else:
        words += f"its mean is {number(after)}"
    if measure.limit_tag in run.metrics:
        limit = mean_of_finite(last_tenth(run.metrics[measure.limit_tag]))
        words += f", {'within' if after <= limit else 'above'} the limit of {number(limit)}"
    return words + "."


def _many_runs(found: Sequence[tuple[Run, dict[str, np.ndarray]]], measure: Measure) -> str:
    turns = [direction(tail["before"], tail["after"]) for _, tail in found if "before" in tail]
    words = "At the end of the training "
    if turns:
        words += f"adaptation raises it in {turns.count(1)} and lowers it in {turns.count(-1)} of {len(turns)} runs"
    else:
        words += f"its mean is {number(float(np.mean([mean_of_finite(tail['after']) for _, tail in found])))}"
    limited = [
        mean_of_finite(tail["after"]) <= mean_of_finite(last_tenth(run.metrics[measure.limit_tag]))
        for run, tail in found
        if measure.limit_tag in run.metrics
    ]
    return words + (f"; it ends within the limit in {sum(limited)} of {len(limited)} runs." if limited else ".")


def adaptation_words(runs: Sequence[Run], split: str, measure: Measure) -> str:
    """What the updates change on a split's tasks; several runs count together."""
    ends = []
    for run in runs:
        grid = run.adaptation.grid(split, measure.column)
        ends.append(grid[complete_tasks(run.adaptation, split)][:, [0, -1]])
    before, after = np.concatenate(ends).T
    tasks = count_words(len(after), "task")
    if measure.limit_column and not np.any(before) and not np.any(after):
        return f"{NO_COST} That holds for each of the {tasks}, before and after."
    first, last = number(mean_of_finite(before)), number(mean_of_finite(after))
    change_of_mean = f"The mean stays at {last}" if first == last else f"The mean goes from {first} to {last}"
    if measure.limit_column:
        within = sum(_within(run, split, measure) for run in runs)
        return f"{change_of_mean}; {within} of {tasks} end within the limit."
    return f"{change_of_mean}; it rises on {int(np.sum(after > before))} of {tasks}."


def _within(run: Run, split: str, measure: Measure) -> int:
    """How many tasks end within the limit on one measure."""
    name = measure.column.removeprefix("cost/")
    each = {constraint.name: constraint.within[1] for constraint in constraint_verdicts(run, split)}
    return each[name] if name in each else verdict(run, split).after.within


def case_words(counts: dict[str, np.ndarray], env_steps: np.ndarray) -> str:
    """Where in the training updates had to repair a broken limit; counts: of each case in the chart's bins."""
    total = np.sum(list(counts.values()), axis=0)
    repairs = np.sum([counts[case] for case in REPAIRS], axis=0)
    if not repairs.any():
        return "No update had to repair a broken limit."
    thirds = [percent(float(a.sum() / b.sum())) for a, b in _thirds(repairs, total) if b.sum()]
    words = "Red and orange steps repair a broken limit: "
    if len(thirds) == 3:
        words += f"{thirds[0]} of the updates in the first third, {thirds[1]} in the middle, {thirds[2]} in the last."
    else:
        words += f"{percent(float(repairs.sum() / total.sum()))} of the updates."
    red = counts["INFEASIBLE"] / np.maximum(total, 1)
    if red.any():
        peak = int(np.argmax(red))
        words += f" Red is most frequent after {short(float(env_steps[peak]))} steps ({percent(float(red[peak]))})."
    return words


def _thirds(*series: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The series in three parts of equal length; those of fewer than three entries are not parted."""
    if len(series[0]) < 3:
        return [series]
    return list(zip(*(np.array_split(values, 3) for values in series), strict=True))


def lead(run: Run, split: str) -> str:
    """The verdict in words: return, limited cost against the limit, tasks within it."""
    row = verdict(run, split)
    adapts = row.steps > 0
    returns = change(adapts, number(row.before.returns), number(row.after.returns))
    costs, met = _constraints_lead(run, split, adapts)
    if not costs:
        costs, met = _cost_lead(row)
    start = f"after {count_words(row.steps, 'update')}, " if adapts else ""
    limit = "every limit" if run.constraints else "their limit"
    return (
        f'<p class="lead {"met" if met else "broken"}"><span class="mark">{escape(split)}</span> '
        f"{start}mean return {returns}, {costs}; "
        f"<b>{row.after.within} of {row.after.tasks}</b> tasks end within {limit}.</p>"
    )


def _cost_lead(row: Verdict) -> tuple[str, bool]:
    """The mean of the limited cost against its limit, and whether it is within."""
    cost = row.limited_cost.replace("_", " ")
    if row.no_cost:
        return f"no cost on any task (limit {limit_words(row.limits)})", True
    before, after = row.cost(row.before), row.cost(row.after)
    shown = change(row.steps > 0, number(before), number(after))
    return f"mean {cost} {shown}, {_against(after, row.limits)} {limit_words(row.limits)}", after <= row.limits[0]


def _constraints_lead(run: Run, split: str, adapts: bool) -> tuple[str, bool]:
    """The same of every constraint by name; empty text for a run with one."""
    found = constraint_verdicts(run, split)
    parts = [
        f"{escape(each.name)} {change(adapts, *map(number, each.cost))} "
        f"({_against(each.cost[1], each.limits)} {limit_words(each.limits)})"
        for each in found
    ]
    cost = run.limited_cost.replace("_", " ")
    met = all(each.cost[1] <= each.limits[0] for each in found)
    return (f"mean {cost} of " + ", of ".join(parts) if parts else ""), met


def _against(cost: float, limits: tuple[float, float]) -> str:
    """A mean cost beside its tasks' limits; between them, or not finite, it is neither within nor above."""
    if cost <= limits[0]:
        return "within the limit of"
    return "above the limit of" if cost > limits[1] else "against a limit of"
