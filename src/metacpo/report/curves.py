"""Learning curves (over training) and adaptation curves (over the updates on a new task)."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from metacpo.report import style
from metacpo.report.captions import adaptation_words, learning_words
from metacpo.report.measures import RETURN, Measure, limited_measures, measures_of
from metacpo.report.run import Run
from metacpo.report.style import Panel
from metacpo.report.summary import robust_limits, rolling, thin
from metacpo.report.words import count_words

MEAN = "mean of the tasks"  # in a legend
MOST_POINTS = 600  # drawn per line: more than the panel has pixels across


def learning_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return, costs (each of several constraints by name) and the share of satisfied tasks; only what runs logged."""
    panels = [_learning_panel(runs, each) for each in measures_of(runs) if any(each.series(run) for run in runs)]
    if any("Metrics/SatisfiedFraction" in run.metrics for run in runs):
        panels.append(_share_panel(runs))
    return panels


def draw_smoothed(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str, statistic: Callable = np.median
) -> None:
    """The raw series in light, its rolling median (a twentieth of the run wide) in bold."""
    keep = thin(len(y), MOST_POINTS)
    axes.plot(x[keep], y[keep], color=colour, linewidth=0.7, alpha=0.3)
    smooth = rolling(y, max(1, len(y) // 20), statistic)
    axes.plot(x[keep], smooth[keep], color=colour, linewidth=2.0, label=label)


def set_robust_limits(axes: Axes, values: Sequence[np.ndarray], include: Sequence[np.ndarray] = ()) -> None:
    """Limit the y axis to the bulk of the values and say how many points lie beyond it."""
    every = np.concatenate([np.asarray(series).ravel() for series in values])
    low, high = robust_limits(every, np.concatenate([np.zeros(0), *map(np.ravel, include)]))
    axes.set_ylim(low, high)
    beyond = int(np.sum((every < low) | (every > high)))
    if beyond:
        style.note(axes, f"{beyond} of {every.size} points beyond the axis")


def _learning_panel(runs: Sequence[Run], measure: Measure) -> Panel:
    figure, axes = style.new_panel()
    values, limits = [], []
    for index, run in enumerate(runs):
        x = run.metrics["env_steps"]
        for stage, series in measure.series(run).items():
            colour = style.run_colour(index, len(runs), measure.colour)
            values.append(series)
            if stage == "before":
                # One grey for every run: it is the background against which adaptation is judged.
                draw_smoothed(axes, x, series, style.BEFORE, legend_label("before adaptation", index == 0))
            else:
                words_after = f"after {count_words(run.last_step, 'update')}" if run.last_step else "policy"
                draw_smoothed(axes, x, series, colour, legend_label(words_after, len(runs) == 1))
        limit = run.metrics.get(measure.limit_tag)
        if limit is not None:
            label = legend_label("limit", not limits)
            axes.plot(x, limit, color=style.LIMIT, linestyle="--", linewidth=1.5, label=label)
            limits.append(limit)
    set_robust_limits(axes, values, limits)
    label_training(axes, f"{measure.words.split(',')[0]} ({measure.unit})")
    about = {
        "return": "Mean over the iteration's training tasks.",
        "discounted_cost": "Discounted: it can be low while violations are only postponed.",
    }.get(measure.column, "Mean over the iteration's training tasks.")
    caption = f"{about} {learning_words(runs, measure)} Thin: each iteration; bold: rolling median."
    return Panel(figure, measure.words, caption)


def _share_panel(runs: Sequence[Run]) -> Panel:
    figure, axes = style.new_panel()
    for index, run in enumerate(runs):
        share = run.metrics.get("Metrics/SatisfiedFraction")
        if share is not None:
            colour = style.run_colour(index, len(runs), style.WITHIN)
            label = legend_label("after adaptation", len(runs) == 1)
            # Shares of a few tasks come in coarse steps, which a median would only repeat.
            draw_smoothed(axes, run.metrics["env_steps"], share, colour, label, statistic=np.mean)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label_training(axes, "Tasks within the limit (%)")
    return Panel(
        figure,
        "Share of training tasks within the limit",
        "A mean cost can be within a limit that single tasks break: this counts the tasks. Higher is better. "
        "Thin: each iteration; bold: rolling mean.",
    )


def label_training(axes: Axes, y: str) -> None:
    """Label axes that run over training, in environment steps."""
    style.label_axes(axes, "Environment steps", y)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.01)
    style.add_legend(axes)


def legend_label(text: str, wanted: bool) -> str:
    """A legend entry, or none: for repeated lines, and for runs, whose colours the page explains once."""
    return text if wanted else "_"


def adaptation_panels(runs: Sequence[Run], split: str) -> list[Panel]:
    """Return and limited cost (of each constraint) of one split against the number of updates."""
    chosen = [run for run in runs if split in run.adaptation.splits]
    return [_adaptation_panel(chosen, split, measure) for measure in (RETURN, *limited_measures(chosen))]


def _adaptation_panel(runs: Sequence[Run], split: str, measure: Measure) -> Panel:
    figure, axes = style.new_panel()
    values, limits = [], []
    for index, run in enumerate(runs):
        if measure.column not in run.adaptation.numbers:
            continue
        colour = style.run_colour(index, len(runs), measure.colour)
        grid = run.adaptation.grid(split, measure.column)
        draw_adaptation(axes, run.adaptation.steps(split), grid, colour, legend_label(MEAN, len(runs) == 1))
        values.append(grid)
        if measure.limit_column:
            limits.append(np.unique(run.adaptation.grid(split, measure.limit_column)))
    if limits:
        draw_limits(axes, np.concatenate(limits))
    set_robust_limits(axes, values, limits)
    style.label_axes(axes, "Constrained policy updates on the task (count)", f"{measure.words} ({measure.unit})")
    style.add_legend(axes)
    known = [run for run in runs if measure.column in run.adaptation.numbers]
    caption = f"{adaptation_words(known, split, measure)} Thin: one task each; bold: their mean."
    return Panel(figure, f"{measure.words}, {split} tasks", caption)


def draw_adaptation(axes: Axes, steps: np.ndarray, grid: np.ndarray, colour: str, label: str) -> None:
    """One thin line per task ([tasks, steps]) under their mean; grey marks the policy before adaptation."""
    axes.plot(steps, grid.T, color=colour, linewidth=0.8, alpha=max(0.12, min(0.45, 5 / len(grid))))
    complete = grid[np.isfinite(grid).all(axis=1)]
    if len(complete):
        mean = complete.mean(axis=0)
        axes.plot(steps, mean, color=colour, linewidth=2.6, marker="o", markersize=5, label=label)
        axes.plot(steps[:1], mean[:1], color=style.BEFORE, marker="o", markersize=7, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_limits(axes: Axes, limits: np.ndarray) -> None:
    """The limit as a dashed line; where tasks have different limits, the lowest and the highest."""
    limits = limits[np.isfinite(limits)]
    if limits.size == 0:
        return
    for index, limit in enumerate(np.unique([limits.min(), limits.max()])):
        label = legend_label("limit", index == 0)
        axes.axhline(float(limit), color=style.LIMIT, linestyle="--", linewidth=1.5, label=label)
