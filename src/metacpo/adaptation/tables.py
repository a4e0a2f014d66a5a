"""An evaluation for a console: what the policies after every update earn and cost, each figure with its interval."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metacpo.adaptation.outcomes import Evaluation, Judged, Row
from metacpo.estimation.measures import unlimited
from metacpo.statistics import Interval, mean_interval, share_beyond_worst, share_interval


def table(evaluation: Evaluation, trained: int | None = None) -> Group:
    """One row for every split and step 0..K: with actions drawn from the policies, and with their mean actions.

    Several constraints have a table of their own, and no sum of them is shown. trained: environment steps that the
    training used, if known.
    """
    measure = evaluation.cost_measure
    drawn = [result.stochastic(measure) for result in evaluation.splits]
    mean = [result.deterministic(measure) for result in evaluation.splits]
    several = len(evaluation.cost_names) > 1
    return Group(
        _table(evaluation, drawn, "adaptation, stochastic actions", ""),
        _table(evaluation, mean, "adaptation, deterministic actions", _note(evaluation)),
        *([_constraint_table(evaluation, drawn, mean)] if several else []),
        Text(budget_line(evaluation, trained)),
    )


def _table(evaluation: Evaluation, outcomes: list[Judged], title: str, note: str) -> Table:
    measure, several = evaluation.cost_measure, len(evaluation.cost_names) > 1
    other = unlimited(measure, "episode", "discounted")
    costs = () if several else (f"{measure} cost", f"{other}\ncost", "limit")
    limits = f"the limits are on {measure} costs" if several else f"the limit is on the {measure} cost"
    shown = _empty_table(f"{title} ({limits})", note)
    for name in ("split", "step", "return", *costs, "tasks within, %", "episodes above, %", "worst\ntask"):
        shown.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for result, outcome in zip(evaluation.splits, outcomes, strict=True):
        limit = float(np.asarray(result.tasks.cost_limit).sum(axis=-1).mean())
        cost = unlimited(measure, outcome.episode_cost, outcome.discounted_cost)
        for step in range(len(outcome.excess)):
            earned, *paid, within, above, worst = _cells(outcome, cost, step, limit)
            shown.add_row(result.split, str(step), earned, *([] if several else paid), within, above, worst)
    return shown


def _empty_table(title: str, note: str = "") -> Table:
    return Table(
        title=title,
        caption=Text(note),  # its brackets are no markup
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _cells(outcome: Judged, other: Float[np.ndarray, "steps M"], step: int, limit: float) -> Iterator[str]:
    """From the return on; families differ in scale, and so do the digits that tell."""
    digits = _digits(limit)
    above = 100 * (1 - outcome.episodes_within[step])
    yield _mean(outcome.episode_return[step], digits)
    yield _mean(outcome.limited_cost[step], digits)
    yield f"{other[step].mean():.{digits}f}"
    yield f"{limit:.{digits}f}"
    yield _within(outcome.satisfied[step])
    yield _mean(above, 0)
    yield f"{outcome.excess[step].max():+.{digits}f}"


def _constraint_table(evaluation: Evaluation, drawn: list[Judged], mean: list[Judged]) -> Table:
    """Every constraint by name: its limited cost beside its own limit, with drawn actions and with mean ones."""
    shown = _empty_table(f"each constraint ({evaluation.cost_measure} costs)")
    names = ("limit", "cost", "tasks within, %", "worst\ntask", "deterministic\ncost")
    for name in ("split", "step", "constraint", *names):
        shown.add_column(name, justify="left" if name in ("split", "constraint") else "right", no_wrap=True)
    for result, both in zip(evaluation.splits, zip(drawn, mean, strict=True), strict=True):
        limits = np.asarray(result.tasks.cost_limit).mean(axis=0)
        for step, i in np.ndindex(len(both[0].costs), len(evaluation.cost_names)):
            digits = _digits(float(limits[i]))
            cells = [f"{limits[i]:.{digits}f}"]
            excess = both[0].excesses[step, :, i]
            cells += [_mean(both[0].costs[step, :, i], digits), _within(excess <= 0), f"{excess.max():+.{digits}f}"]
            cells += [_mean(both[1].costs[step, :, i], digits)]
            shown.add_row(result.split, str(step), Text(evaluation.cost_names[i]), *cells)
    return shown


def _digits(limit: float) -> int:
    return 1 if limit >= 5 else 3


def _within(satisfied: Bool[np.ndarray, " M"]) -> str:
    within, tasks = int(satisfied.sum()), len(satisfied)
    return f"{within}/{tasks}" + _ends(Interval(*(100 * end for end in share_interval(within, tasks))), 0)


def _mean(values: Float[np.ndarray, " M"], digits: int) -> str:
    return f"{values.mean():.{digits}f}{_ends(mean_interval(values), digits)}"


def _ends(interval: Interval, digits: int) -> str:
    """The interval behind its figure; nothing where there is none: of one task, or of what is not finite."""
    if not np.all(np.isfinite(interval)):
        return ""
    return f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _note(evaluation: Evaluation) -> str:
    """What the columns say that their names do not."""
    counts = [result.tasks.cost_limit.shape[0] for result in evaluation.splits]
    beyond = share_beyond_worst(min(counts))
    return (
        "[low, high]: 95 % interval over tasks. Episodes above: those that break a limit. Worst task: the largest cost "
        f"minus its limit; of {min(counts)} tasks it says that at most {100 * beyond:.0f} % of all are worse (95 %)."
    )


def budget_line(evaluation: Evaluation, trained: int | None) -> str:
    """Environment steps behind the table: of the training, if known, and of the adaptation to one task."""
    lengths = [np.asarray(result.adaptation.stats.length)[:-1] for result in evaluation.splits]  # [K, M] each
    parts = [] if trained is None else [f"trained with {trained:,} steps"]
    if updates := len(lengths[0]):
        steps = evaluation.episodes * float(np.mean(np.concatenate(lengths)))
        whose = "the update" if updates == 1 else f"each of {updates} updates"
        parts.append(f"{whose} of a task sees {evaluation.episodes} episodes, {steps:,.0f} steps")
    return "; ".join(parts)


def while_adapting(evaluation: Evaluation) -> list[str]:
    """One line a split about the policies before the last update: a robot that adapts has to live with these too.

    A policy's excess is its largest cost above that cost's limit: slack of one constraint hides no other's violation.
    """
    names, lines = evaluation.cost_names, []
    for result in evaluation.splits:
        outcome = result.stochastic(evaluation.cost_measure)
        excess = outcome.excess[:-1]
        if excess.size:
            paid, within = np.maximum(excess, 0.0), int(np.sum(excess <= 0))
            worst = names[int(np.argmax(outcome.excesses[:-1].max(axis=(0, 1))))]
            lines.append(
                f"{result.split}, updates 0 to {len(excess) - 1}: {within} of {excess.size} policies within "
                f"{_limits(names)}, mean excess {np.where(np.isinf(paid), 0.0, paid).mean():.3g}, "
                f"worst {paid.max():.3g}" + (f" ({worst})" if len(names) > 1 and paid.max() > 0 else "")
            )
    return lines


def _limits(names: tuple[str, ...]) -> str:
    return "the limit" if len(names) == 1 else "every limit"


def difference(here: Evaluation, there: Evaluation, names: tuple[str, str]) -> list[str]:
    """One line a split: what the adapted policies earn and cost in the second evaluation beside the first."""
    lines = []
    for pair in zip(here.splits, there.splits, strict=True):
        both = [list(which.rows_of(split)) for which, split in zip((here, there), pair, strict=True)]
        first, second = ([row for row in rows if row.step == rows[-1].step] for rows in both)
        earned = _change([row.episode_return for row in first], [row.episode_return for row in second])
        within = [sum(row.satisfied for row in rows) for rows in (first, second)]
        lines.append(
            f"{pair[0].split}, {names[1]} against {names[0]}: return {earned}, {_cost_changes(first, second)}, "
            f"within {_limits(here.cost_names)} {within[1]} against {within[0]} of {len(first)}"
        )
    return lines


def _cost_changes(first: Sequence[Row], second: Sequence[Row]) -> str:
    """Of the episode cost, or of each of several constraints."""
    constraints = first[0].constraints
    if len(constraints) == 1:
        return f"episode cost {_change([row.episode_cost for row in first], [row.episode_cost for row in second])}"
    both = [[[row.constraints[i].cost for row in rows] for rows in (first, second)] for i in range(len(constraints))]
    return ", ".join(f"{each.name} {_change(*costs)}" for each, costs in zip(constraints, both, strict=True))


def _change(first: Sequence[float], second: Sequence[float]) -> str:
    """The second mean beside the first."""
    before, after = float(np.mean(first)), float(np.mean(second))
    return f"{after:.3g} against {before:.3g} ({after - before:+.2g})"
