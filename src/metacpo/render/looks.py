"""Colours and letters of all pictures: the report's palette, for Pillow and for the camera."""

from pathlib import Path

import matplotlib
from PIL import ImageColor, ImageFont

from metacpo.report import style
from metacpo.report.floor import ROLES, STAGE

PAPER = "#ffffff"
Rgb = tuple[int, int, int]


def rgb(colour: str) -> Rgb:
    """A colour's red, green and blue, 0 to 255."""
    return ImageColor.getrgb(colour)[:3]


def mixed(colour: str, share: float) -> Rgb:
    """The colour with this share of itself, the rest paper."""
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in zip(rgb(colour), rgb(PAPER), strict=True))
    return red, green, blue


def camera_palette(stage: str) -> dict[str, tuple[float, float, float]]:
    """The roles' colours in [0, 1], the robot and its path in those of the stage."""
    names = ROLES | {"unsafe": style.UNSAFE, "robot": STAGE[stage], "path": STAGE[stage]}
    return {role: (r / 255, g / 255, b / 255) for role, (r, g, b) in ((k, rgb(v)) for k, v in names.items())}


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
