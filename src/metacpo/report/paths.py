"""Paths seen from above, before and after adaptation, over the circle and the walls of their task."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from metacpo.report import style
from metacpo.report.read import Geometry, Run, Trace
from metacpo.report.style import Panel
from metacpo.report.summary import thin

STAGES = {"before": style.BEFORE, "after": style.RETURN}
MOST_TASKS = 3  # per split
MOST_EPISODES = 6  # per task and stage
MOST_POINTS = 250  # per episode


def path_panels(run: Run) -> list[Panel]:
    """One panel for each of the first tasks of every split; none where the run kept no paths."""
    panels = []
    for split, task in shown_tasks(run):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        pair = figure.subplots(1, 2, sharex=True, sharey=True)
        before, after = draw_before_after(tuple(pair), run, split, task)
        layout = run.layout.get((split, task), Geometry())
        caption = describe(layout)
        if layout.wall is not None:
            caption += f" Outside the walls: {share_words(before)} of the time, then {share_words(after)}."
        panels.append(Panel(figure, f"{split}, task {task}", caption))
    return panels


def shown_tasks(run: Run) -> list[tuple[str, int]]:
    """(split, task) of the paths to draw, in the order of the file."""
    found = dict.fromkeys((trace.split, trace.task) for trace in run.traces or ())
    shown = []
    for split, task in found:
        if sum(other == split for other, _ in shown) < MOST_TASKS:
            shown.append((split, task))
    return shown


def draw_before_after(pair: tuple[Axes, ...], run: Run, split: str, task: int) -> list[float]:
    """Draw both stages side by side to one scale; returns the shares of points outside the walls."""
    layout = run.layout.get((split, task), Geometry())
    stages = [[t for t in run.traces or () if (t.split, t.task, t.stage) == (split, task, stage)] for stage in STAGES]
    half = _half_width(layout, [trace for traces in stages for trace in traces])
    shares = []
    for axes, stage, traces in zip(pair, STAGES, stages, strict=True):
        style.style_axes(axes)
        draw_layout(axes, layout, half)
        shares.append(draw_traces(axes, traces, STAGES[stage], _wall(layout)))
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        axes.set_title(f"{stage} adaptation", color=style.INK, fontsize=style.FONT_SIZE)
        style.label_axes(axes, "x (m)", "y (m)" if axes is pair[0] else "")
    return shares


def draw_layout(axes: Axes, layout: Geometry, half: float) -> None:
    """The circle to run along, and the walls with the unsafe zone behind them."""
    radius, wall = layout.circle_radius, _wall(layout)
    if radius is not None:
        axes.add_patch(Circle((0, 0), radius, fill=False, color=style.INK, linewidth=1, linestyle=(0, (1, 2))))
    for side in (-1, 1):
        if wall < half:
            axes.axvspan(side * wall, side * half, color=style.UNSAFE, alpha=0.1, linewidth=0)
            axes.axvline(side * wall, color=style.UNSAFE, linewidth=1.2)


def draw_traces(axes: Axes, traces: Sequence[Trace], colour: str, wall: float) -> float:
    """Draw some episodes, their unsafe parts in red; returns the share of all points outside the walls."""
    for trace in traces[:MOST_EPISODES]:
        keep = thin(len(trace.x), MOST_POINTS)
        x, y = trace.x[keep], trace.y[keep]
        axes.plot(x, y, color=colour, linewidth=1.3, alpha=0.8)
        # NaN cuts the red line wherever the episode is safe; the dots keep lone unsafe points visible.
        axes.plot(
            np.where(np.abs(x) > wall, x, np.nan),
            y,
            color=style.UNSAFE,
            linewidth=1.3,
            marker="o",
            markersize=1.3,
            markeredgewidth=0,
        )
        axes.plot(x[:1], y[:1], color=style.INK, marker="o", markersize=2.5)
    x = np.concatenate([trace.x for trace in traces]) if traces else np.zeros(0)
    return float(np.mean(np.abs(x) > wall)) if x.size else math.nan


def describe(layout: Geometry) -> str:
    """The task's geometry in words."""
    words = []
    if layout.circle_radius is not None:
        words.append(f"circle of radius {layout.circle_radius:.2f} m")
    if layout.wall is not None:
        words.append(f"walls at ±{layout.wall:.2f} m")
    return ", ".join(words).capitalize() + "." if words else "No geometry was saved for this task."


def _wall(layout: Geometry) -> float:
    """The wall's |x|; infinitely far where the task has none."""
    return math.inf if layout.wall is None else layout.wall


def _half_width(layout: Geometry, traces: Sequence[Trace]) -> float:
    """Half the width of the view: the circle and nearly all points; a runaway may leave it.

    Walls are in view where they are near; far ones would shrink all else.
    """
    wanted = [] if layout.circle_radius is None else [1.15 * layout.circle_radius]
    points = np.concatenate([np.zeros(0), *[np.maximum(np.abs(t.x), np.abs(t.y)) for t in traces]])
    points = points[np.isfinite(points)]
    if points.size:
        wanted.append(1.05 * float(np.quantile(points, 0.98)))
    half = max(wanted, default=1.0) or 1.0
    return max(half, min(1.15 * _wall(layout), 1.5 * half))


def share_words(value: float) -> str:
    """A share of an episode's time, in whole percent."""
    return "no points" if math.isnan(value) else f"{100 * value:.0f}\u00a0%"
