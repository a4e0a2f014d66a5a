"""Pictures without OpenGL, pixel by pixel: the floor from above, the strip below it, the files of videos."""

import subprocess

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

from metacpo.envs.scene import Disc, Ring, Wall
from metacpo.envs.tasks import Parameter
from metacpo.render import looks, video
from metacpo.render.above import Above
from metacpo.render.overlay import draw_bars, fitted, task_words
from metacpo.render.video import VideoError, pace, shown_steps, write_video
from metacpo.report import style
from metacpo.report.floor import ALPHA, STAGE, View, view_of

VIEW = View(0.0, 0.0, 2.0)
HAZARD = Disc(1.0, 1.0, 0.5, "hazard")


def near(pixel, colour, within=2):
    return np.abs(np.asarray(pixel, int) - np.asarray(colour)).max() <= within


def drawn(scene, position=((0.0, -1.0),), unsafe=(False,), stage="after"):
    return Above(VIEW, 200).frame(scene, np.array(position), np.array(unsafe), STAGE[stage])


def at(picture, x, y):
    right, down = Above(VIEW, 200).pixel(x, y)
    return picture[int(down), int(right)]


def test_a_hazard_is_where_the_task_has_it_in_the_hazards_colour():
    picture = drawn((HAZARD,))
    assert near(at(picture, 0.9, 0.9), looks.mixed(style.COST, ALPHA["hazard"]))
    assert near(at(picture, 0.9, -0.9), looks.rgb(looks.PAPER))
    assert near(at(picture, -0.9, 0.9), looks.rgb(looks.PAPER))


def test_a_wall_has_its_unsafe_zone_behind_it():
    picture = drawn((Wall(-1.2), Wall(1.2)))
    for side in (-1, 1):
        assert near(at(picture, 1.5 * side, 0.3), looks.mixed(style.UNSAFE, 26 / 255))
        assert near(at(picture, 1.1 * side, 0.3), looks.rgb(looks.PAPER))
        assert near(at(picture, 1.205 * side, 0.3), looks.rgb(style.UNSAFE), within=120)


def test_the_path_is_red_where_a_step_had_cost():
    picture = drawn((), position=[(-1.5, 0.3), (0.0, 0.3), (1.5, 0.3)], unsafe=[False, False, True])
    assert near(at(picture, -0.7, 0.3), looks.rgb(style.RETURN), within=130) and at(picture, -0.7, 0.3)[0] < 140
    assert at(picture, 0.7, 0.3)[0] > 180 and at(picture, 0.7, 0.3)[2] < 160
    assert near(at(picture, 1.5, 0.3), looks.rgb(style.UNSAFE)), "the robot itself, while it costs"


def test_the_view_holds_every_shape_and_no_runaway_shrinks_it():
    inside = np.zeros((100, 2))
    inside[0] = (900.0, 0.0)
    view = view_of([(Ring(0.0, 0.0, 1.5, "course"), Wall(40.0), HAZARD)], [inside])
    assert (view.x, view.y, view.half) == (0.0, 0.0, pytest.approx(1.15 * 1.5))
    assert view_of([()], [np.zeros((3, 2))]).half == 1.0, "a robot that never moved"
    assert view_of([()], [np.full((3, 2), np.nan)]).half == 1.0, "nor was anywhere"


@pytest.mark.parametrize(
    ("cost", "limit", "colour"),
    [(10.0, 25.0, style.WITHIN), (25.0, 25.0, style.WITHIN), (26.0, 25.0, style.UNSAFE), (1.0, 0.0, style.UNSAFE)],
)
def test_the_bar_is_red_above_the_limit(cost, limit, colour):
    image = Image.new("RGB", (300, 60), "white")
    draw_bars(ImageDraw.Draw(image), (10, 0, 290, 60), np.array([cost]), np.array([limit]), ["walls cost"])
    pixels = np.asarray(image)[36, 10:290]
    assert near(pixels[5], looks.rgb(colour))
    filled = np.mean([near(pixel, looks.rgb(colour)) for pixel in pixels])
    assert filled == pytest.approx(min(cost / (2 * limit), 1.0) if limit else 1.0, abs=0.03)


def test_each_cost_has_its_bar():
    image = Image.new("RGB", (300, 60), "white")
    draw_bars(ImageDraw.Draw(image), (10, 0, 290, 60), np.array([5.0, 30.0]), np.array([10.0, 20.0]), ["a", "b"])
    column = np.asarray(image)[:, 20]
    assert any(near(pixel, looks.rgb(style.WITHIN)) for pixel in column[:30])
    assert any(near(pixel, looks.rgb(style.UNSAFE)) for pixel in column[30:])


def test_words_that_fit():
    font = looks.font(11)
    assert fitted("short", font, 100) == "short"
    cut = fitted("goal_x 1.2 m, goal_y 0.1 m, and so on", font, 100)
    assert cut.endswith("…") and font.getlength(cut) <= 100
    parameters = {"radius": Parameter(1.0, 0.0, 2.0, "m"), "hazards": Parameter(5.0, 0.0, 9.0, "hazards", whole=True)}
    assert task_words({"radius": np.float32(1.25), "hazards": 5}, parameters) == "radius 1.25 m, 5 hazards"


@pytest.mark.parametrize("steps", [0, 1, 12, 100, 500, 1000])
def test_a_video_takes_ten_seconds_or_less_from_the_first_to_the_last_step(steps):
    shown = shown_steps(steps)
    assert (shown[0], shown[-1]) == (0, steps) and sorted(set(shown)) == shown
    assert len(shown) / pace(len(shown)) <= 11.0


def frames(count):
    for i in range(count):
        frame = np.full((48, 64, 3), 255, np.uint8)
        frame[:, : 4 * i] = looks.rgb(style.UNSAFE)
        yield frame


def decoded(path, shape):
    """Frames [T, H, W, 3] of a video file whose frames have this shape."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return np.array([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    # imageio_ffmpeg's own reader forks, which JAX warns of
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, *shape)


def skip_without(kind):
    if kind == "mp4" and not video.has_ffmpeg():
        pytest.skip("imageio-ffmpeg is not installed")


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_video_can_be_decoded(kind, tmp_path):
    skip_without(kind)
    path = tmp_path / f"film.{kind}"
    write_video(path, frames(7), fps=5)
    seen = decoded(path, (48, 64, 3))
    assert seen.shape == (7, 48, 64, 3)
    assert near(seen[6, 20, 5], looks.rgb(style.UNSAFE), within=12) and near(seen[6, 20, 50], (255, 255, 255), within=6)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_what_fails_leaves_an_earlier_film_as_it_was(kind, tmp_path):
    skip_without(kind)
    path = tmp_path / f"film.{kind}"
    path.write_bytes(b"an earlier film")

    def breaking():
        yield from frames(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(path, breaking(), fps=5)
    assert path.read_bytes() == b"an earlier film"
    assert list(tmp_path.iterdir()) == [path]


def test_an_encoder_that_refuses_says_so(tmp_path):
    skip_without("mp4")
    with pytest.raises(VideoError, match=r"\w"):
        write_video(tmp_path / "odd.mp4", iter([np.zeros((3, 5, 3), np.uint8)]), fps=5)
    assert list(tmp_path.iterdir()) == []
