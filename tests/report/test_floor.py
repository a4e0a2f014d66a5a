"""The painter of floors and paths: what is drawn where, by the pixels of the picture."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from metacpo.report import style
from metacpo.report.floor import ALPHA, ROLES, View, draw_floor, draw_path, floor_key, floor_words, view_of
from metacpo.shapes import Disc, Ring, Wall

SIZE = 200  # pixels of a view 4 m wide
VIEW = View(1.0, 0.0, 2.0)
HAZARDS = Disc(0.0, 0.0, 0.1, "hazard"), Disc(1.0, 0.0, 0.1, "hazard")


def drawn(scene=(), position=None, unsafe=None, colour=style.RETURN):
    """The picture of a floor without margins, [SIZE, SIZE, 3] in 0..1."""
    figure = Figure(figsize=(2, 2), dpi=SIZE / 2)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_floor(axes, scene, VIEW)
    axes.grid(False)
    if position is not None:
        draw_path(axes, np.array(position), np.array(unsafe), colour)
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return np.asarray(Image.open(buffer).convert("RGB")) / 255


def at(picture, x, y):
    right = (x - VIEW.x + VIEW.half) * SIZE / (2 * VIEW.half)
    down = (VIEW.y + VIEW.half - y) * SIZE / (2 * VIEW.half)
    return picture[int(down), int(right)]


def mixed(colour, share):
    return share * np.array(to_rgb(colour)) + (1 - share)


def test_discs_are_where_the_task_has_them_in_the_colours_of_their_roles():
    picture = drawn((Disc(0.0, 1.0, 0.4, "hazard"), Disc(2.0, -1.0, 0.3, "goal")))
    np.testing.assert_allclose(at(picture, 0.3, 1.0), mixed(ROLES["hazard"], ALPHA["hazard"]), atol=0.02)
    np.testing.assert_allclose(at(picture, 2.0, -1.2), mixed(ROLES["goal"], ALPHA["goal"]), atol=0.02)
    np.testing.assert_allclose(at(picture, 0.5, 1.0), 1.0)


def test_a_wall_shades_the_side_away_from_the_middle_as_far_as_it_reaches():
    picture = drawn((Wall(2.0, half=1.0), Wall(-0.5)))
    np.testing.assert_allclose(at(picture, 2.5, 0.5), mixed(style.UNSAFE, 0.1), atol=0.02)
    np.testing.assert_allclose(at(picture, -0.8, -1.5), mixed(style.UNSAFE, 0.1), atol=0.02)
    for x, y in ((2.5, 1.5), (1.5, 0.5), (0.0, 0.5)):  # beyond its end; before the walls
        np.testing.assert_allclose(at(picture, x, y), 1.0)


def test_a_ring_is_a_dotted_line_round_an_empty_middle():
    picture = drawn((Ring(1.0, 0.0, 1.0, "course"),))
    angles = np.linspace(0, 2 * np.pi, 400)
    rim = np.array([at(picture, 1 + np.cos(angle), np.sin(angle)).mean() for angle in angles])
    assert rim.min() < 0.4 and np.mean(rim > 0.9) > 0.2
    np.testing.assert_allclose(at(picture, 1.0, 0.0), 1.0)


def test_a_path_is_red_where_it_is_unsafe():
    picture = drawn(position=[(-0.5, 0.0), (1.0, 0.0), (2.5, 0.0)], unsafe=[False, True, True])
    red, blue = at(picture, 1.8, 0.0), at(picture, 0.2, 0.0)
    assert red[0] > 0.6 and red[2] < 0.5 and blue[2] > 0.5 and blue[0] < 0.4


@pytest.mark.parametrize(("unsafe", "colour"), [(False, style.RETURN), (True, style.UNSAFE)])
def test_an_episode_of_one_step_is_a_dot_in_its_own_colour(unsafe, colour):
    np.testing.assert_allclose(at(drawn(position=[(1.0, 0.0)], unsafe=[unsafe]), 1.0, 0.0), to_rgb(colour), atol=0.1)


def test_a_near_wall_is_in_view_and_a_far_one_is_not():
    ring = Ring(0.0, 0.0, 1.0, "course")
    assert view_of([(ring, Wall(1.2), Wall(-1.2))], []).half == pytest.approx(1.15 * 1.2)
    assert view_of([(ring, Wall(1.6), Wall(-1.6))], []).half == pytest.approx(1.15)


def test_words_of_a_floor():
    scene = (
        Ring(0.0, 0.0, 1.33, "course"),
        Wall(-0.83),
        Wall(0.83),
        *HAZARDS,
    )
    assert floor_words(scene) == "Circle of radius 1.33 m, walls at x = ±0.83 m, 2 hazards"
    assert floor_words((Wall(0.5), Disc(0.0, 0.0, 0.1, "goal"))) == "Walls at x = 0.50 m, 1 goal"
    assert floor_words(()) == ""
    assert floor_key({0: (HAZARDS, ())}) == "Orange: hazards. "
