"""The one painter of floors and paths, seen from above: the report's panels and `metacpo render`'s pictures are its.

Colours say what a shape is for, and whether a path was walked before or after adaptation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from metacpo.report import style
from metacpo.report.words import count_words
from metacpo.shapes import Disc, Ring, Scene, Wall

ROLES = {
    "hazard": style.COST,
    "goal": style.WITHIN,
    "button": style.RUNS[5],
    "course": style.INK,
    "wall": style.UNSAFE,
}
KEY = {  # what a shape of a role means, for a caption
    (Ring, "course"): "Dotted: the circle to run along.",
    (Wall, "wall"): "Red lines: walls, unsafe behind them.",
    (Disc, "hazard"): "Orange: hazards.",
    (Disc, "goal"): "Green: the goal.",
    (Disc, "button"): "Violet: buttons that are no goal.",
}
ALPHA = {"hazard": 0.55, "goal": 0.5, "button": 0.8}  # of discs
ZONE = 0.1  # opacity of what is unsafe behind a wall
STAGE = {"before": style.BEFORE, "after": style.RETURN}
MARGIN = 1.15
FAR = 1.5  # half-widths: a wall that is farther away does not widen the view


@dataclass(frozen=True)
class View:
    """The square that a picture shows: its centre and half its width (m)."""

    x: float
    y: float
    half: float


def view_of(scenes: Iterable[Scene], positions: Sequence[np.ndarray]) -> View:
    """A square round every shape and nearly all positions [T, 2]: a runaway may leave it, a far wall too."""
    scenes = list(scenes)
    boxes = [
        np.array([[shape.x - shape.radius, shape.y - shape.radius], [shape.x + shape.radius, shape.y + shape.radius]])
        for scene in scenes
        for shape in scene
        if not isinstance(shape, Wall)
    ]
    for position in positions:
        known = position[np.isfinite(position).all(axis=1)]
        if len(known):
            boxes.append(np.quantile(known, [0.02, 0.98], axis=0))
    if not boxes:
        return View(0.0, 0.0, 1.0)
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    x, y = (low + high) / 2
    half = MARGIN * float(np.max(high - low)) / 2 or 1.0
    walls = [MARGIN * abs(shape.x - float(x)) for scene in scenes for shape in scene if isinstance(shape, Wall)]
    return View(float(x), float(y), max([half, *(wall for wall in walls if wall <= FAR * half)]))


def draw_floor(axes: Axes, scene: Scene, view: View) -> None:
    """The shapes on the floor, and axes that show the view to one scale."""
    style.style_axes(axes)
    axes.set(xlim=(view.x - view.half, view.x + view.half), ylim=(view.y - view.half, view.y + view.half))
    axes.set_aspect("equal")
    for shape in scene:
        colour = ROLES[shape.role]
        if isinstance(shape, Disc):
            alpha = ALPHA.get(shape.role, 0.5)
            axes.add_patch(Circle((shape.x, shape.y), shape.radius, facecolor=colour, alpha=alpha, linewidth=0))
        elif isinstance(shape, Ring):
            line = (0, (1, 2))
            axes.add_patch(Circle((shape.x, shape.y), shape.radius, fill=False, edgecolor=colour, linestyle=line))
        else:
            _draw_wall(axes, shape, view, colour)


def _draw_wall(axes: Axes, wall: Wall, view: View, colour: str) -> None:
    """The line, and the zone behind it shaded as far as the view goes."""
    if abs(wall.x - view.x) >= view.half:
        return
    ends = [max(-wall.half, view.y - view.half), min(wall.half, view.y + view.half)]
    beyond = view.x + np.sign(wall.x) * view.half
    axes.fill_betweenx(ends, wall.x, beyond, color=colour, alpha=ZONE, linewidth=0)
    axes.plot([wall.x, wall.x], ends, color=colour, linewidth=1.2, scalex=False, scaley=False)


def draw_path(axes: Axes, position: np.ndarray, unsafe: np.ndarray, colour: str) -> None:
    """One episode's positions [T, 2], red where unsafe [T], with a dot at the start."""
    x, y = position.T
    axes.plot(x, y, color=colour, linewidth=1.3, alpha=0.85)
    # NaN cuts the red line wherever the episode is safe; the dots keep lone unsafe steps visible.
    red = np.where(unsafe, x, np.nan)
    axes.plot(red, y, color=style.UNSAFE, linewidth=1.3, marker="o", markersize=1.6, markeredgewidth=0)
    only = len(x) == 1  # an episode of one step: its dot is all there is of it
    start = style.INK if not only else style.UNSAFE if unsafe[0] else colour
    axes.plot(x[:1], y[:1], color=start, marker="o", markersize=4 if only else 3)


def floor_words(scene: Scene) -> str:
    """What is on the floor, in words: "Circle of radius 1.33 m, walls at x = ±0.83 m, 2 hazards"."""
    words = [f"circle of radius {shape.radius:.2f} m" for shape in scene if isinstance(shape, Ring)]
    walls = sorted(shape.x for shape in scene if isinstance(shape, Wall))
    if len(walls) == 2 and walls[0] == -walls[1]:
        words.append(f"walls at x = ±{walls[1]:.2f} m")
    elif walls:
        words.append("walls at x = " + " and ".join(f"{x:.2f}" for x in walls) + " m")
    discs = [shape.role for shape in scene if isinstance(shape, Disc)]
    words += [count_words(discs.count(role), role) for role in dict.fromkeys(discs)]
    text = ", ".join(words)
    return text[:1].upper() + text[1:]


def floor_key(scenes: dict[Any, tuple[Scene, ...]]) -> str:
    """What the marks on some floors mean: a sentence for each that is there, and a space after it."""
    shapes = {(type(shape), shape.role) for floors in scenes.values() for scene in floors for shape in scene}
    return "".join(f"{words} " for mark, words in KEY.items() if mark in shapes)
