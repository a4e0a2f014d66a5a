"""The report's tables, as HTML. Every text from a run passes through `escape`."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from metacpo.report.run import Run
from metacpo.report.summary import Outcome, Verdict, constraint_verdicts, last_tenth, mean_of_finite, verdict
from metacpo.report.updates import CASES, case_counts
from metacpo.report.words import aside, change, count_words, interval_words, limit_words, number, percent, signed, whole
from metacpo.statistics import share_beyond_worst, share_interval
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
        rows += [_verdict_row(head, run, several, each) for run, each in verdicts]
        if several:
            rows.append(_mean_row(head, split, [each for _, each in verdicts]))
    return _table(head, rows, "verdict")


def budget_words(runs: Sequence[Run]) -> str:
    """What the table's policies have used: environment steps of the training, episodes of the adaptation to a task."""
    used = {run.name: whole(float(run.metrics["env_steps"][-1])) for run in runs}
    each = len(set(used.values())) > 1
    steps = ", ".join(f"{escape(name)} {count}" for name, count in used.items()) if each else used[runs[0].name]
    words = f"Environment steps of the training: {steps}."
    episodes = dict.fromkeys(str(run.setting("adaptation.episodes", "")) for run in runs)
    if all(episodes):
        words += f" Episodes that an update of a task sees: {escape(', '.join(episodes))}."
    return words


def split_names(runs: Sequence[Run]) -> list[str]:
    """The splits of all runs, each once, in the order of the files."""
    return list(dict.fromkeys(split for run in runs for split in run.adaptation.splits))


def _verdict_row(head: list[str], run: Run, several: bool, row: Verdict) -> str:
    low, high = share_interval(row.after.within, row.after.tasks)
    wider = set(WIDER) <= set(head)

    def within(outcome: Outcome) -> str:
        return f"{outcome.within}/{outcome.tasks}"

    def mean(field: str, words: Callable[[float], str] = number) -> str:
        shown = change(row.steps > 0, words(getattr(row.before, field)), words(getattr(row.after, field)))
        interval = interval_words(row.after.intervals[field], words) if wider else ""
        return shown + (aside(interval) if interval else "")

    costs = {name: mean(name) for name in ("episode_cost", "discounted_cost")}
    names = run.constraints
    costs[row.limited_cost] += aside(f"sum of {' + '.join(names)}" if names else f"limit {limit_words(row.limits)}")
    if row.no_cost:
        costs[row.limited_cost] += aside(f"measured: no cost on any of {count_words(row.after.tasks, 'task')}")
    cells = [
        escape(row.split),
        *([escape(run.name)] if several else []),
        str(row.after.tasks),
        mean("returns"),
        *costs.values(),
        change(row.steps > 0, within(row.before), within(row.after))
        + aside(f"{100 * low:.0f}–{100 * high:.0f}\u00a0% (95\u00a0% interval)"),
    ]
    if wider:
        beyond = f"at most {percent(share_beyond_worst(row.after.tasks))} of tasks are worse (95\u00a0%)"
        worst = change(row.steps > 0, signed(row.before.worst), signed(row.after.worst))
        cells += [mean("above", percent), worst + aside(beyond)]
    return _row(head, cells)


def constraint_table(runs: Sequence[Run]) -> str:
    """Every constraint by name against its own limit, before → after; empty text for runs with one constraint."""
    several = len(runs) > 1
    words = runs[0].limited_cost.replace("_", " ").capitalize()
    head = ["Split", *(["Run"] if several else []), "Constraint", words, "Limit", "Tasks within it", "Worst task"]
    rows = []
    for split in split_names(runs):
        for run in (run for run in runs if split in run.adaptation.splits):
            adapts = verdict(run, split).steps > 0
            for each in constraint_verdicts(run, split):
                cells = [escape(split), *([escape(run.name)] if several else []), escape(each.name)]
                cells += [change(adapts, *map(number, each.cost)), limit_words(each.limits)]
                cells += [change(adapts, *(f"{count}/{each.tasks}" for count in each.within))]
                rows.append(_row(head, [*cells, change(adapts, *map(signed, each.worst))]))
    return _table(head, rows, "verdict") if rows else ""


def _mean_row(head: list[str], split: str, rows: Sequence[Verdict]) -> str:
    """Mean over runs, and their standard deviation.

    No interval: the runs may have met the same tasks, so their figures cannot be pooled.
    """

    def mean(field: str) -> str:
        before = [getattr(row.before, field) for row in rows]
        after = [getattr(row.after, field) for row in rows]
        words = {"share": percent, "above": percent, "worst": signed}.get(field, number)
        spread = (number if field == "worst" else words)(float(np.std(after, ddof=1))) if len(rows) > 1 else ""
        return change(rows[0].steps > 0, words(float(np.mean(before))), words(float(np.mean(after)))) + (
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
        for found in health.findings(run.metrics, run.limited_tag):
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
            overall = mean_of_finite(np.concatenate(columns))
            last = mean_of_finite(np.concatenate([last_tenth(column) for column in columns]))
            rows.append(_row(head, [words, number(overall), number(last), meaning]))
    return _table(head, rows, "health") if rows else ""


def _row(head: Sequence[str], cells: Sequence[str], kind: str = "") -> str:
    # The labels replace the header on a phone, where each row becomes a block (page.css).
    body = "".join(f'<td data-label="{label}"><div>{cell}</div></td>' for label, cell in zip(head, cells, strict=True))
    return f'<tr class="{kind}">{body}</tr>' if kind else f"<tr>{body}</tr>"


def _table(head: Sequence[str], rows: Sequence[str], kind: str) -> str:
    header = "".join(f"<th>{label}</th>" for label in head)
    return f'<table class="{kind}"><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
