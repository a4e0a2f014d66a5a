"""The paths of a split's episodes from above, before and after adaptation, as one figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metacpo.envs.base import Environment
from metacpo.render.episodes import Episode
from metacpo.report import style
from metacpo.report.floor import STAGE, View, draw_floor, draw_path, view_of
from metacpo.report.words import number
from metacpo.run_folder import replacing
from metacpo.shapes import Scene

SIDE = 2.5  # inches of one pair of axes
DPI = 110


def write_paths(path: Path, env: Environment, episodes: Sequence[Episode], title: str) -> None:
    """Columns are tasks, rows the stages; `path` is a .png. A path is red where its steps had cost."""
    numbers = list(dict.fromkeys(episode.number for episode in episodes))
    with style.own_settings():
        figure = Figure(figsize=(SIDE * len(numbers) + 0.6, 2 * SIDE + 0.7), layout="constrained", dpi=DPI)
        grid = figure.subplots(len(STAGE), len(numbers), squeeze=False)
        for column, task in enumerate(numbers):
            pair = [episode for episode in episodes if episode.number == task]
            scenes = [episode.scene(env, episode.steps) for episode in pair]
            view = view_of(scenes, [episode.position for episode in pair])
            for row, (episode, scene) in enumerate(zip(pair, scenes, strict=True)):
                axes = grid[row, column]
                draw_episode(axes, episode, scene, view)
                style.label_axes(axes, "x (m)" if row else "", "" if column else "y (m)")
        figure.suptitle(style.plain(title), color=style.INK, fontsize=style.FONT_SIZE + 1)
        with replacing(path) as part:
            figure.savefig(part)


def draw_episode(axes: Axes, episode: Episode, scene: Scene, view: View) -> None:
    """One episode on the floor of its task."""
    draw_floor(axes, scene, view)
    draw_path(axes, episode.position, episode.unsafe, STAGE[episode.stage])
    over = np.any(episode.cost[-1] > episode.limit)
    cost = " + ".join(number(float(value)) for value in episode.cost[-1])
    limit = " + ".join(number(float(value)) for value in episode.limit)
    axes.set_title(
        f"task {episode.number}, {episode.stage}\nreturn {number(episode.total[-1])}, cost {cost} (limit {limit})",
        color=style.UNSAFE if over else style.INK,
        fontsize=style.FONT_SIZE - 2,
    )
