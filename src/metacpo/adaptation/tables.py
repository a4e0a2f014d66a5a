"""An evaluation for a console: what the policies after every update earn and cost, each figure with its interval."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metacpo.adaptation.outcomes import Evaluation, Judged, rows_of
from metacpo.statistics import Interval, mean_interval, share_beyond_worst, share_interval


def table(evaluation: Evaluation, trained: int | None = None) -> Group:
    """One row for every split and step 0..K: with actions drawn from the policies, and with their mean actions.

    trained: environment steps that the training used, if known.
    """
    measure = evaluation.cost_measure
    drawn = [result.stochastic(measure) for result in evaluation.splits]
    mean = [result.deterministic(measure) for result in evaluation.splits]
    return Group(
        _table(evaluation, drawn, "adaptation, stochastic actions", ""),
        _table(evaluation, mean, "adaptation, deterministic actions", _note(evaluation)),
        Text(budget_line(evaluation, trained)),
    )


def _table(evaluation: Evaluation, outcomes: list[Judged], title: str, note: str) -> Table:
    measure = evaluation.cost_measure
    other = "discounted" if measure == "episode" else "episode"
    shown = Table(
        title=f"{title} (the limit is on the {measure} cost)",
        caption=Text(note),  # its brackets are no markup
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    names = ("return", f"{measure} cost", f"{other}\ncost", "limit", "tasks within, %", "episodes above, %")
    for name in ("split", "step", *names, "worst\ntask"):
        shown.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for result, outcome in zip(evaluation.splits, outcomes, strict=True):
        limit = float(np.asarray(result.tasks.cost_limit).sum(axis=-1).mean())
        unlimited = outcome.discounted_cost if measure == "episode" else outcome.episode_cost
        for step in range(len(outcome.excess)):
            shown.add_row(result.split, str(step), *_cells(outcome, unlimited, step, limit))
    return shown


def _cells(outcome: Judged, unlimited: Float[np.ndarray, "steps M"], step: int, limit: float) -> Iterator[str]:
    """From the return on; families differ in scale, and so do the digits that tell."""
    digits = 1 if limit >= 5 else 3
    within, tasks = int(outcome.satisfied[step].sum()), outcome.satisfied.shape[1]
    above = 100 * (1 - outcome.episodes_within[step])
    yield _mean(outcome.episode_return[step], digits)
    yield _mean(outcome.limited_cost[step], digits)
    yield f"{unlimited[step].mean():.{digits}f}"
    yield f"{limit:.{digits}f}"
    yield f"{within}/{tasks}" + _ends(Interval(*(100 * end for end in share_interval(within, tasks))), 0)
    yield _mean(above, 0)
    yield f"{outcome.excess[step].max():+.{digits}f}"


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
    lines = []
    for result in evaluation.splits:
        excess = result.stochastic(evaluation.cost_measure).excess[:-1]
        if excess.size:
            paid, within = np.maximum(excess, 0.0), int(np.sum(excess <= 0))
            lines.append(
                f"{result.split}, updates 0 to {len(excess) - 1}: {within} of {excess.size} policies within the limit, "
                f"mean excess {np.where(np.isinf(paid), 0.0, paid).mean():.3g}, worst {paid.max():.3g}"
            )
    return lines


def difference(here: Evaluation, there: Evaluation, names: tuple[str, str]) -> list[str]:
    """One line a split: what the adapted policies earn and cost in the second evaluation beside the first."""
    lines = []
    for pair in zip(here.splits, there.splits, strict=True):
        both = [[row for row in rows_of(split, here.cost_measure)] for split in pair]
        last = [[row for row in rows if row.step == rows[-1].step] for rows in both]
        earned, paid = (
            [float(np.mean([getattr(row, name) for row in rows])) for rows in last]
            for name in ("episode_return", "episode_cost")
        )
        within = [sum(row.satisfied for row in rows) for rows in last]
        lines.append(
            f"{pair[0].split}, {names[1]} against {names[0]}: return {earned[1]:.3g} against {earned[0]:.3g} "
            f"({earned[1] - earned[0]:+.2g}), episode cost {paid[1]:.3g} against {paid[0]:.3g} "
            f"({paid[1] - paid[0]:+.2g}), within the limit {within[1]} against {within[0]} of {len(last[0])}"
        )
    return lines
