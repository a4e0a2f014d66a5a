"""Paths seen from above, before and after adaptation, on the floor of their task."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metacpo.report import style
from metacpo.report.floor import STAGE, draw_floor, draw_path, floor_words, view_of
from metacpo.report.run import Run, Trace
from metacpo.report.style import Panel
from metacpo.report.summary import thin
from metacpo.report.words import percent

MOST_TASKS = 3  # per split
MOST_EPISODES = 6  # per task and stage
MOST_POINTS = 250  # per episode


def path_panels(run: Run, split: str) -> list[Panel]:
    """One panel for each of the first tasks of a split; none where the run kept no paths."""
    panels = []
    for task in shown_tasks(run, split):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        pair = figure.subplots(1, 2, sharex=True, sharey=True)
        before, after = draw_before_after(tuple(pair), run, split, task)
        words = [floor_words(run.scene(split, task, 0)) or "Nothing is known of the floor"]
        if not (math.isnan(before) and math.isnan(after)):
            words.append(f"Unsafe: {share_words(before)} of the steps before, {share_words(after)} after adaptation")
        if not _one_floor(run, split, task):
            words.append("The first episode alone: in each one things lie elsewhere")
        panels.append(Panel(figure, f"{split}, task {task}", ". ".join(words) + "."))
    return panels


def shown_tasks(run: Run, split: str) -> list[int]:
    """The tasks of a split whose paths are drawn, in the order of the file."""
    return list(dict.fromkeys(trace.task for trace in run.traces or () if trace.split == split))[:MOST_TASKS]


def draw_before_after(pair: tuple[Axes, ...], run: Run, split: str, task: int) -> list[float]:
    """Draw both stages side by side to one scale; returns the shares of unsafe steps, NaN where they are not known."""
    of_task = [trace for trace in run.traces or () if (trace.split, trace.task) == (split, task)]
    scene = run.scene(split, task, 0)
    drawn = of_task if _one_floor(run, split, task) else [trace for trace in of_task if trace.episode == 0]
    view = view_of([scene], [trace.position for trace in drawn])
    shares = []
    for axes, (stage, colour) in zip(pair, STAGE.items(), strict=True):
        draw_floor(axes, scene, view)
        for trace in [trace for trace in drawn if trace.stage == stage][:MOST_EPISODES]:
            keep = thin(len(trace.position), MOST_POINTS)
            unsafe = np.zeros(len(trace.position), bool) if trace.unsafe is None else trace.unsafe
            draw_path(axes, trace.position[keep], unsafe[keep], colour)
        shares.append(unsafe_share([trace for trace in of_task if trace.stage == stage]))
        axes.set_title(f"{stage} adaptation", color=style.INK, fontsize=style.FONT_SIZE)
        style.label_axes(axes, "x (m)", "y (m)" if axes is pair[0] else "")
    return shares


def unsafe_share(traces: Sequence[Trace]) -> float:
    """The share of the steps of some episodes that are unsafe; NaN where there are none, or it is not known."""
    known = [trace.unsafe for trace in traces if trace.unsafe is not None and len(trace.unsafe)]
    return float(np.mean(np.concatenate(known))) if known else math.nan


def share_words(value: float) -> str:
    """A share of the steps, in whole percent."""
    return "no part" if math.isnan(value) else percent(value)


def _one_floor(run: Run, split: str, task: int) -> bool:
    """Whether all episodes of a task have the same shapes on the floor; a reset may place them anew."""
    return len(set(run.scenes.get((split, task), ()))) <= 1
