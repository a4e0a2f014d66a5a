"""The paths of a split's episodes from above, before and after adaptation, as one figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from metacpo.envs.base import Environment
from metacpo.envs.scene import Disc, Ring, Scene
from metacpo.render import looks
from metacpo.render.above import ALPHA, View, view_of
from metacpo.render.episodes import STAGES, Episode
from metacpo.render.overlay import number
from metacpo.render.video import replacing
from metacpo.report import style

SIDE = 2.5  # inches of one pair of axes
DPI = 110


def write_paths(path: Path, env: Environment, episodes: Sequence[Episode], title: str) -> None:
    """Columns are tasks, rows the stages; `path` is a .png. A path is red where its steps had cost."""
    numbers = list(dict.fromkeys(episode.number for episode in episodes))
    with style.own_settings():
        figure = Figure(figsize=(SIDE * len(numbers) + 0.6, 2 * SIDE + 0.7), layout="constrained", dpi=DPI)
        grid = figure.subplots(len(STAGES), len(numbers), squeeze=False)
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
    style.style_axes(axes)
    axes.set(xlim=(view.x - view.half, view.x + view.half), ylim=(view.y - view.half, view.y + view.half))
    axes.set_aspect("equal")
    for shape in scene:
        colour = looks.ROLES[shape.role]
        if isinstance(shape, Disc):
            alpha = ALPHA.get(shape.role, 0.5)
            axes.add_patch(Circle((shape.x, shape.y), shape.radius, facecolor=colour, alpha=alpha, linewidth=0))
        elif isinstance(shape, Ring):
            ring = Circle((shape.x, shape.y), shape.radius, fill=False, edgecolor=colour, linestyle=(0, (1, 2)))
            axes.add_patch(ring)
        elif abs(shape.x - view.x) < view.half:
            axes.axvspan(shape.x, view.x + np.sign(shape.x) * view.half, color=colour, alpha=0.1, linewidth=0)
            axes.axvline(shape.x, color=colour, linewidth=1.2)
    x, y = episode.position.T
    axes.plot(x, y, color=looks.STAGE[episode.stage], linewidth=1.3)
    # NaN cuts the red line wherever the episode is safe; the dots keep lone unsafe steps visible.
    red = np.where(episode.unsafe, x, np.nan)
    axes.plot(red, y, color=style.UNSAFE, linewidth=1.3, marker="o", markersize=1.6, markeredgewidth=0)
    axes.plot(x[:1], y[:1], color=style.INK, marker="o", markersize=3)
    over = np.any(episode.cost[-1] > episode.limit)
    cost = " + ".join(number(value) for value in episode.cost[-1])
    limit = " + ".join(number(value) for value in episode.limit)
    axes.set_title(
        f"task {episode.number}, {episode.stage}\nreturn {number(episode.total[-1])}, cost {cost} (limit {limit})",
        color=style.UNSAFE if over else style.INK,
        fontsize=style.FONT_SIZE - 2,
    )
