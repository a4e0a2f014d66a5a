"""One picture for a README: what a few updates do to return, cost and path on new tasks."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from metacpo.report import style
from metacpo.report.curves import MEAN, draw_adaptation, draw_limits, set_robust_limits
from metacpo.report.measures import RETURN, Measure, limited_measures
from metacpo.report.paths import draw_before_after, share_words, shown_tasks
from metacpo.report.read import read_run
from metacpo.report.run import Run
from metacpo.report.summary import Verdict, verdict

SIZE = (10.0, 4.4)  # inches
DPI = 160  # 1600 × 704 pixels
WORST = Measure("Worst cost above its limit", "cost per episode", "excess", "", "")


@style.own_settings()
def write_readme_picture(run_dir: Path, path: Path) -> None:
    """Write a PNG of the first split: adaptation curves, and one task's paths where the run kept them."""
    run = read_run(run_dir)
    split = run.adaptation.splits[0]
    row = verdict(run, split)
    task = next(iter(shown_tasks(run, split)), None)
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(_title(run, row), color=style.INK, fontsize=14, x=0.012, ha="left")
    if task is None:
        returns, costs = figure.subplots(1, 2)
    else:
        grid = figure.add_gridspec(2, 3, width_ratios=[0.95, 1, 1])
        returns, costs = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
        left = figure.add_subplot(grid[:, 1])
        right = figure.add_subplot(grid[:, 2], sharex=left, sharey=left)
        for axes, share in zip((left, right), draw_before_after((left, right), run, split, task), strict=True):
            if not math.isnan(share):
                axes.set_title(f"{axes.get_title()}: {share_words(share)} unsafe", color=style.INK, fontsize=11)
    _draw_curve(returns, run, split, RETURN)
    _draw_curve(costs, run, split, _limited(run))
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _title(run: Run, row: Verdict) -> str:
    name = run.setting("env.name", run.setting("env"))
    where = name if isinstance(name, str) else run.name
    tasks = f"{row.after.tasks} {row.split} tasks"
    within = f"{row.before.within} → {row.after.within} tasks within the limit"
    return style.plain(f"{where}: {row.steps} updates on each of {tasks}, {within}")


def _limited(run: Run) -> Measure:
    """The cost that the limit limits; of several constraints, how far the worst one is above its own."""
    if run.constraints and "excess" in run.adaptation.numbers:
        return WORST
    return limited_measures([run])[0]


def _draw_curve(axes: Axes, run: Run, split: str, measure: Measure) -> None:
    style.style_axes(axes)
    grid = run.adaptation.grid(split, measure.column)
    draw_adaptation(axes, run.adaptation.steps(split), grid, measure.colour, MEAN)
    limits = np.zeros(0)
    if measure is WORST:
        limits = np.zeros(1)
    elif measure.limit_column:
        limits = np.unique(run.adaptation.grid(split, measure.limit_column))
    draw_limits(axes, limits)
    set_robust_limits(axes, [grid], [limits])
    style.label_axes(axes, "Constrained updates (count)", f"{measure.words} per episode")
    if limits.size:
        axes.legend(frameon=False, fontsize=style.FONT_SIZE - 1, labelcolor=style.INK, loc="upper right")
