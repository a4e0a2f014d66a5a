"""The report's tables, as HTML. Every text from a run passes through `escape`."""

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from metacpo.report.read import Run
from metacpo.report.summary import Outcome, Verdict, verdict
from metacpo.report.updates import CASES, case_counts
from metacpo.statistics import Interval, share_beyond_worst, share_interval
from metacpo.training import health

# tag -> (words, what it tells)
HEALTH = {
    "Meta/Accepted": ("Meta-updates accepted", "1 where the line search kept the meta-step"),
    "Misc/Rejected": ("Inner updates rejected", "per iteration; the parameters stayed as they were"),
    "Misc/DerivativeClipped": ("Edge cases of the derivative", "per iteration; where the step's slope is cut off"),
    "Misc/CGResidual": ("Residual of the linear solves", "relative; small means that H⁻¹v was solved well"),
    "Train/PolicyStd": ("Policy's standard deviation", "in units of the action"),
}


WIDER = ["Episodes above the limit", "Worst task"]  # columns for runs that know these


def number(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes; a thin space parts thousands."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", "−")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def percent(share: float) -> str:
    """Whole percent; a share that is small but not zero says so."""
    if not math.isfinite(share):
        return "not finite"
    return "under 1\u00a0%" if 0 < share < 0.005 else f"{100 * share:.0f}\u00a0%"


def limit_words(verdict: Verdict) -> str:
    low, high = verdict.limits
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def verdict_table(runs: Sequence[Run]) -> str:
    """Before → after adaptation, one row per split and run; with several runs also their mean."""
    several = len(runs) > 1
    head = ["Split", *(["Run"] if several else []), "Tasks", "Return", "Episode cost", "Discounted cost"]
    head.append("Tasks within the limit")
    if all("episodes_within" in run.adaptation.numbers and "excess" in run.adaptation.numbers for run in runs):
        head += WIDER
    rows = []
    for split in split_names(runs):
        verdicts = [(run, verdict(run, split)) for run in runs if split in run.adaptation.splits]
        rows += [_verdict_row(head, escape(run.name) if several else "", each) for run, each in verdicts]
        if several:
            rows.append(_mean_row(head, split, [each for _, each in verdicts]))
    return _table(head, rows, "verdict")


def budget_words(runs: Sequence[Run]) -> str:
    """What the table's policies have used: environment steps of the training, episodes of the adaptation to a task."""
    used = {run.name: _whole(float(run.metrics["env_steps"][-1])) for run in runs}
    each = len(set(used.values())) > 1
    steps = ", ".join(f"{escape(name)} {count}" for name, count in used.items()) if each else used[runs[0].name]
    words = f"Environment steps of the training: {steps}."
    episodes = dict.fromkeys(str(run.setting("adaptation.episodes", "")) for run in runs)
    if all(episodes):
        words += f" Episodes that an update of a task sees: {escape(', '.join(episodes))}."
    return words


def _whole(value: float) -> str:
    """A count with all its digits, as far as they mean something."""
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) < 1e15 else number(value)


def split_names(runs: Sequence[Run]) -> list[str]:
    """The splits of all runs, each once, in the order of the files."""
    return list(dict.fromkeys(split for run in runs for split in run.adaptation.splits))


def _verdict_row(head: list[str], run: str, row: Verdict) -> str:
    limit = f'<span class="aside">limit {limit_words(row)}</span>'
    low, high = share_interval(row.after.within, row.after.tasks)
    wider = set(WIDER) <= set(head)

    def within(outcome: Outcome) -> str:
        return f"{outcome.within}/{outcome.tasks}"

    def mean(field: str, words: Callable[[float], str] = number) -> str:
        shown = change(row, words(getattr(row.before, field)), words(getattr(row.after, field)))
        return shown + (ends(row.after.intervals[field], words) if wider else "")

    costs = {name: mean(name) for name in ("episode_cost", "discounted_cost")}
    costs[row.limited_cost] += limit
    interval = f'<span class="aside">{100 * low:.0f}–{100 * high:.0f}\u00a0% (95\u00a0% interval)</span>'
    cells = [
        escape(row.split),
        *([run] if run else []),
        str(row.after.tasks),
        mean("returns"),
        *costs.values(),
        change(row, within(row.before), within(row.after)) + interval,
    ]
    if wider:
        beyond = f"at most {percent(share_beyond_worst(row.after.tasks))} of tasks are worse (95\u00a0%)"
        worst = change(row, signed(row.before.worst), signed(row.after.worst))
        cells += [mean("above", percent), f'{worst}<span class="aside">{beyond}</span>']
    return _row(head, cells)


def ends(interval: Interval, words: Callable[[float], str]) -> str:
    """An interval beside its figure; empty where there is none."""
    if not np.all(np.isfinite(interval)):
        return ""
    return f'<span class="aside">{words(interval.low)} to {words(interval.high)} (95\u00a0% interval)</span>'


def signed(excess: float) -> str:
    """A cost above its limit, or below."""
    return f"+{number(excess)}" if excess > 0 and math.isfinite(excess) else number(excess)


def change(row: Verdict, before: str, after: str) -> str:
    """`before → after`; a single value where the run does not adapt."""
    if row.steps == 0:
        return f"<b>{after}</b>"
    return f'<span class="before">{before}</span> → <b>{after}</b>'


def _mean_row(head: list[str], split: str, rows: Sequence[Verdict]) -> str:
    """Mean over runs, and their standard deviation.

    No interval: the runs may have met the same tasks, so their figures cannot be pooled.
    """

    def mean(field: str) -> str:
        before = [getattr(row.before, field) for row in rows]
        after = [getattr(row.after, field) for row in rows]
        words = {"share": percent, "above": percent, "worst": signed}.get(field, number)
        spread = (number if field == "worst" else words)(float(np.std(after, ddof=1))) if len(rows) > 1 else ""
        return change(rows[0], words(float(np.mean(before))), words(float(np.mean(after)))) + (
            f' <span class="aside">± {spread}</span>' if spread else ""
        )

    tasks = ", ".join(sorted({str(row.after.tasks) for row in rows}))
    cells = [escape(split), f"mean of {len(rows)} runs", tasks, mean("returns")]
    cells += [mean("episode_cost"), mean("discounted_cost"), mean("share")]
    cells += [mean("above"), mean("worst")] if set(WIDER) <= set(head) else []
    return _row(head, cells, "mean")


def case_table(runs: Sequence[Run]) -> str:
    """Counts, shares and meanings of the cases in which inner updates ended; all runs together."""
    counts = {case: sum(case_counts(run)[case] for run in runs) for case in CASES}
    total = sum(counts.values())
    head = ["Case", "Updates", "Share", "Meaning"]
    rows = [
        _row(head, [case, f"{count:,}".replace(",", "\u2009"), percent(count / max(total, 1)), CASES[case][1]])
        for case, count in counts.items()
    ]
    return _table(head, rows, "cases")


def warnings_table(runs: Sequence[Run]) -> str:
    """What the health rules found in each run; empty text if nothing."""
    several = len(runs) > 1
    head = ["Warning", *(["Run"] if several else []), "Meta-iterations", "Meaning", "What to do"]
    rows = []
    for run in runs:
        end = int(run.metrics["iteration"][-1])
        cost = "Metrics/DiscountedCost" if run.limited_cost == "discounted_cost" else "Metrics/EpCost"
        for found in health.findings(run.metrics, cost):
            when = f"{found.first} to {found.last}" if found.last > found.first else str(found.first)
            still = "still at the end" if found.last == end else "over by the end"
            name = f'<b>{escape(found.rule.name)}</b><span class="aside">{escape(found.rule.threshold)}</span>'
            cells = [name, *([escape(run.name)] if several else [])]
            cells += [f'{when}<span class="aside">{found.count} times, {still}</span>']
            rows.append(_row(head, [*cells, escape(found.rule.meaning), escape(found.rule.advice)]))
    return _table(head, rows, "warnings") if rows else ""


def health_table(runs: Sequence[Run]) -> str:
    """Means over the run and over its last tenth; empty text where nothing of it was logged."""
    head = ["Measure", "Whole run", "Last tenth", "What it is"]
    rows = []
    for tag, (words, meaning) in HEALTH.items():
        columns = [run.metrics[tag] for run in runs if tag in run.metrics]
        if columns:
            whole = _mean(np.concatenate(columns))
            last = _mean(np.concatenate([column[-max(1, len(column) // 10) :] for column in columns]))
            rows.append(_row(head, [words, number(whole), number(last), meaning]))
    return _table(head, rows, "health") if rows else ""


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _row(head: Sequence[str], cells: Sequence[str], kind: str = "") -> str:
    # The labels replace the header on a phone, where each row becomes a block (page.css).
    body = "".join(f'<td data-label="{label}"><div>{cell}</div></td>' for label, cell in zip(head, cells, strict=True))
    return f'<tr class="{kind}">{body}</tr>' if kind else f"<tr>{body}</tr>"


def _table(head: Sequence[str], rows: Sequence[str], kind: str) -> str:
    header = "".join(f"<th>{label}</th>" for label in head)
    return f'<table class="{kind}"><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
