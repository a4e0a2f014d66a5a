"""Learning curves (over training) and adaptation curves (over the updates on a new task)."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from metacpo.report import style
from metacpo.report.read import Run
from metacpo.report.style import Panel
from metacpo.report.summary import robust_limits, rolling, thin

# column of adaptation.csv -> (suffix of the Adapt/ tags, tag after adaptation, words)
MEASURES = {
    "return": ("EpRet", "Metrics/EpRet", "Return"),
    "episode_cost": ("EpCost", "Metrics/EpCost", "Episode cost"),
    "discounted_cost": ("DiscountedCost", "Metrics/DiscountedCost", "Discounted cost"),
}
UNITS = {
    "return": "reward per episode",
    "episode_cost": "cost per episode",
    "discounted_cost": "per episode",
}
MOST_POINTS = 600  # drawn per line: more than the panel has pixels across


def colour_of(measure: str) -> str:
    return style.RETURN if measure == "return" else style.COST


def learning_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return, both costs and the share of satisfied tasks over training; only what the runs logged."""
    panels = []
    for measure in MEASURES:
        if any(_learning_series(run, measure) for run in runs):
            panels.append(_learning_panel(runs, measure))
    if any("Metrics/SatisfiedFraction" in run.metrics for run in runs):
        panels.append(_share_panel(runs))
    return panels


def _learning_series(run: Run, measure: str) -> list[tuple[str, np.ndarray]]:
    """The series "before" and "after" of a measure, as far as the run logged them."""
    suffix, total, _ = MEASURES[measure]
    series = []
    before = run.metrics.get(f"Adapt/step0/{suffix}")
    after = run.metrics.get(f"Adapt/step{run.last_step}/{suffix}", run.metrics.get(total))
    if before is not None and run.last_step > 0:
        series.append(("before", before))
    if after is not None:
        series.append(("after", after))
    return series


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


def _learning_panel(runs: Sequence[Run], measure: str) -> Panel:
    words = MEASURES[measure][2]
    figure, axes = style.new_panel()
    values, limits = [], []
    for index, run in enumerate(runs):
        x = run.metrics["env_steps"]
        for stage, series in _learning_series(run, measure):
            colour = style.run_colour(index, len(runs), colour_of(measure))
            values.append(series)
            if stage == "before":
                # One grey for every run: it is the background against which adaptation is judged.
                draw_smoothed(axes, x, series, style.BEFORE, legend_label("before adaptation", index == 0))
            else:
                words_after = f"after {run.last_step} updates" if run.last_step else "policy"
                draw_smoothed(axes, x, series, colour, legend_label(words_after, len(runs) == 1))
        limit = run.metrics.get("Metrics/CostLimit")
        if measure == run.limited_cost and limit is not None:
            label = legend_label("limit", not limits)
            axes.plot(x, limit, color=style.LIMIT, linestyle="--", linewidth=1.5, label=label)
            limits.append(limit)
    set_robust_limits(axes, values, limits)
    label_training(axes, f"{words} ({UNITS[measure]})")
    caption = {
        "return": "Mean over the iteration's training tasks. Adaptation should lift it: look for the gap.",
        "episode_cost": "Undiscounted cost of an episode.",
        "discounted_cost": "Discounted as in the paper: it can be low while violations are only postponed.",
    }[measure]
    if limits:
        caption += " The colour should end on or below the dashed limit; grey may stay above it."
    return Panel(figure, words, f"{caption} Thin: each iteration; bold: rolling median.")


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
        "The mean cost can meet a limit that single tasks break: this counts the tasks. Higher is better. "
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
    """Return and limited cost of one split against the number of updates."""
    chosen = [run for run in runs if split in run.adaptation.splits]
    return [
        _adaptation_panel(chosen, split, "return"),
        # Runs of one report share their cost measure: they are seeds of one setting.
        _adaptation_panel(chosen, split, chosen[0].limited_cost),
    ]


def _adaptation_panel(runs: Sequence[Run], split: str, measure: str) -> Panel:
    figure, axes = style.new_panel()
    values, limits = [], []
    for index, run in enumerate(runs):
        colour = style.run_colour(index, len(runs), colour_of(measure))
        grid = run.adaptation.grid(split, measure)
        label = legend_label("mean of the tasks", len(runs) == 1)
        draw_adaptation(axes, run.adaptation.steps(split), grid, colour, label)
        values.append(grid)
        limits.append(np.unique(run.adaptation.grid(split, "cost_limit")))
    if measure == "return":
        set_robust_limits(axes, values)
    else:
        draw_limits(axes, np.concatenate(limits))
        set_robust_limits(axes, values, limits)
    words = MEASURES[measure][2]
    style.label_axes(axes, "Constrained policy updates on the task (count)", f"{words} ({UNITS[measure]})")
    style.add_legend(axes)
    caption = {
        "return": "A good start point climbs within the first updates, on every task.",
        "episode_cost": "Lines should fall below the dashed limit and stay there.",
        "discounted_cost": "Lines should fall below the dashed limit and stay there.",
    }[measure]
    return Panel(figure, f"{words}, {split} tasks", f"Thin: one task each; bold: their mean. {caption}")


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
