"""A task seen from above, drawn by Pillow alone: no OpenGL, no screen."""

import math

import numpy as np
from PIL import Image, ImageDraw

from metacpo.envs.scene import Disc, Ring, Scene, Wall, grid_step
from metacpo.render import looks
from metacpo.report import style
from metacpo.report.floor import ALPHA, ROLES, View

FINER = 2  # drawn at twice the size, then reduced: smooth edges
ROBOT = 0.06  # of the half-width


class Above:
    """Draws one view as pictures of `size` × `size` pixels."""

    def __init__(self, view: View, size: int):
        self.view, self.size = view, size

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a place (m) is in the picture, in pixels from the upper left corner."""
        scale = self.size / (2 * self.view.half)
        return (x - self.view.x + self.view.half) * scale, (self.view.y + self.view.half - y) * scale

    def frame(self, scene: Scene, position: np.ndarray, unsafe: np.ndarray, colour: str) -> np.ndarray:
        """uint8 [size, size, 3]: the scene, the path [t + 1, 2] (m) up to now, red where unsafe [t + 1], the robot."""
        wide = FINER * self.size
        image = Image.new("RGB", (wide, wide), looks.PAPER)
        draw = ImageDraw.Draw(image, "RGBA")
        self._grid(draw)
        for shape in scene:
            self._shape(draw, shape)
        self._path(draw, position, unsafe, colour)
        x, y = self._fine(*position[-1])
        radius = ROBOT * wide / 4
        fill = looks.rgb(style.UNSAFE if unsafe[-1] else colour)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=looks.PAPER, width=FINER)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BOX))

    def _fine(self, x: float, y: float) -> tuple[float, float]:
        right, down = self.pixel(x, y)
        return FINER * right, FINER * down

    def _grid(self, draw: ImageDraw.ImageDraw) -> None:
        """Lines on the floor."""
        view, wide = self.view, FINER * self.size
        apart = grid_step(view.half)
        for centre, at in ((view.x, 0), (view.y, 1)):
            for i in range(math.ceil((centre - view.half) / apart), math.floor((centre + view.half) / apart) + 1):
                place = self._fine(i * apart, i * apart)[at]
                ends = [(place, 0), (place, wide)] if at == 0 else [(0, place), (wide, place)]
                draw.line(ends, fill=style.GRID, width=FINER)

    def _shape(self, draw: ImageDraw.ImageDraw, shape: Disc | Ring | Wall) -> None:
        colour = ROLES[shape.role]
        if isinstance(shape, Wall):
            return self._wall(draw, shape, colour)
        left, upper = self._fine(shape.x - shape.radius, shape.y + shape.radius)
        right, lower = self._fine(shape.x + shape.radius, shape.y - shape.radius)
        box = (left, upper, right, lower)
        if isinstance(shape, Disc):
            fill = (*looks.rgb(colour), round(255 * ALPHA.get(shape.role, 0.5)))
            return draw.ellipse(box, fill=fill, outline=looks.rgb(colour), width=FINER)
        for start in range(0, 360, 6):
            draw.arc(box, start, start + 3, fill=looks.rgb(colour), width=2 * FINER)

    def _wall(self, draw: ImageDraw.ImageDraw, wall: Wall, colour: str) -> None:
        """The line, and the zone behind it shaded as far as the picture goes."""
        wide = FINER * self.size
        half = min(wall.half, abs(self.view.y) + self.view.half)
        x, upper = self._fine(wall.x, half)
        lower = self._fine(wall.x, -half)[1]
        beyond = wide if wall.x > 0 else 0
        if min(x, beyond) < wide and max(x, beyond) > 0:
            draw.rectangle((min(x, beyond), upper, max(x, beyond), lower), fill=(*looks.rgb(colour), 26))
        draw.line([(x, upper), (x, lower)], fill=looks.rgb(colour), width=2 * FINER)

    def _path(self, draw: ImageDraw.ImageDraw, position: np.ndarray, unsafe: np.ndarray, colour: str) -> None:
        points = [self._fine(x, y) for x, y in position]
        for start, end, bad in zip(points[:-1], points[1:], unsafe[1:], strict=True):
            draw.line([start, end], fill=looks.rgb(style.UNSAFE if bad else colour), width=2 * FINER)
