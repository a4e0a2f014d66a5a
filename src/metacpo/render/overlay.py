"""The strip under every picture: what is shown, and return, cost and limit so far."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from metacpo.envs.tasks import Parameter
from metacpo.render import looks
from metacpo.render.episodes import Episode
from metacpo.report import style
from metacpo.report.words import number

HEIGHT, WORDS = 88, 64  # pixels, and where the last line begins
EDGE, GAP = 14, 12
BAR_HEIGHT = 10
FULL = 2.0  # limits: the cost that fills a bar


def captioned(
    picture: np.ndarray, episode: Episode, step: int, words: str, names: Sequence[str], measure: str
) -> np.ndarray:
    """`picture` [H, W, 3] with the strip below it. words: the task's; names: of the m costs; measure: of the limit."""
    height, width = picture.shape[:2]
    image = Image.new("RGB", (width, height + HEIGHT), looks.PAPER)
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    draw.line([(0, height), (width, height)], fill=style.GRID)
    middle, small, bold = round(width * 0.55), looks.font(11), looks.font(13, bold=True)
    title = f"{episode.stage} adaptation"
    draw.text((EDGE, height + 10), title, font=bold, fill=looks.STAGE[episode.stage])
    taken = EDGE + bold.getlength(title) + GAP
    progress = fitted(f"step {step}/{episode.steps}", small, middle - taken)
    draw.text((taken, height + 12), progress, font=small, fill=style.INK)
    about = f"{episode.split} task {episode.number}   return {number(float(episode.total[step]))}"
    draw.text((EDGE, height + 34), fitted(about, small, middle - EDGE - GAP), font=small, fill=style.INK)
    draw.text((EDGE, height + WORDS), fitted(words, small, width - 2 * EDGE), font=small, fill=style.MUTED)
    box = (middle, height + 2, width - EDGE, height + WORDS - 2)
    draw_bars(draw, box, episode.cost[step], episode.limit, [f"{name} {measure}" for name in names])
    return np.asarray(image)


def draw_bars(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    cost: np.ndarray,
    limit: np.ndarray,
    names: Sequence[str],
) -> None:
    """One bar for each cost [m] in the box (pixels): green up to its limit [m], all of it red beyond."""
    left, top, right, bottom = box
    row = (bottom - top) / len(names)
    size = 11 if row >= 40 else 9
    for index, (value, most, name) in enumerate(zip(cost, limit, names, strict=True)):
        colour = style.UNSAFE if value > most else style.WITHIN
        y = round(top + index * row + row / 2)
        text = looks.font(size)
        amount = f"{number(float(value))} / limit {number(float(most))}"
        place = right - looks.font(size, bold=True).getlength(amount)
        draw.text((left, y - size - 4), fitted(name, text, place - left - GAP), font=text, fill=style.INK)
        draw.text((place, y - size - 4), amount, font=looks.font(size, bold=True), fill=colour)
        tall = BAR_HEIGHT if len(names) < 3 else BAR_HEIGHT // 2
        draw.rectangle((left, y + 2, right, y + 2 + tall), fill=style.GRID)
        share = min(float(value) / (FULL * most), 1.0) if most > 0 else float(value > 0)
        if share > 0:
            draw.rectangle((left, y + 2, left + round(share * (right - left)), y + 2 + tall), fill=colour)
        mark = left + round((right - left) / FULL) if most > 0 else left
        draw.line([(mark, y), (mark, y + 4 + tall)], fill=style.LIMIT, width=2)


def fitted(text: str, font: looks.ImageFont.FreeTypeFont, width: float | int) -> str:
    """As much of a text as `width` pixels hold, with an ellipsis where it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,") + "…"


def task_words(params: dict, parameters: dict[str, Parameter]) -> str:
    """A task's parameters in words: "radius 1.25 m, 5 hazards"."""
    words = []
    for name, about in parameters.items():
        value = float(params[name])
        words.append(f"{value:g} {about.unit}" if about.whole else f"{name} {value:.3g} {about.unit}".strip())
    return ", ".join(words)
