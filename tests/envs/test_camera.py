"""Camera pictures: what is in view has its colour, and a machine without OpenGL says what was tried."""

import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.physics import camera as module
from metacpo.envs.physics.camera import Camera, NoRenderer, choose_backend
from metacpo.envs.scene import Disc

PALETTE = {
    name: (0.0, 0.0, 0.0) for name in ("hazard", "goal", "button", "course", "wall", "path", "unsafe", "robot")
} | {"hazard": (1.0, 0.0, 0.0), "robot": (0.0, 0.0, 1.0)}


@pytest.fixture
def opened():
    """A camera above a Point at the origin, 2 m wide view."""
    env = make("point-circle")
    try:
        with Camera(env.physics.model, 160, 112, PALETTE) as camera:
            camera.look_at((0.0, 0.0), 1.0)
            yield camera, np.zeros(env.physics.model.nq)
    except NoRenderer as why:
        pytest.skip(str(why))


def share(picture, channel):
    """The share of pixels in which one colour is far stronger than the two others."""
    others = np.delete(picture.astype(int), channel, axis=-1).max(axis=-1)
    return float(np.mean(picture[..., channel].astype(int) - others > 60))


def test_robot_and_shapes_are_in_the_picture(opened):
    camera, qpos = opened
    empty = camera.frame(qpos, None, ())
    assert (empty.shape, empty.dtype) == ((112, 160, 3), np.uint8)
    assert share(empty, 2) > 0.003 and share(empty, 0) == 0
    left = camera.frame(qpos, None, (Disc(-0.6, 0.0, 0.2, "hazard"),))
    assert share(left[:, :80], 0) > 0.01 and share(left[:, 80:], 0) == 0


def test_the_same_picture_again(opened):
    camera, qpos = opened
    np.testing.assert_array_equal(camera.frame(qpos, None, ()), camera.frame(qpos, None, ()))


def test_a_scene_beyond_what_the_camera_holds_is_cut_not_fatal(opened):
    camera, qpos = opened
    trail = [(0.0001 * i, 0.0, False) for i in range(module.MOST_GEOMS + 100)]
    assert camera.frame(qpos, None, (), trail).shape == (112, 160, 3)


@pytest.fixture
def broken(monkeypatch):
    """Backends of which only those in the set work."""
    works: set[str] = set()
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module, "_trouble", lambda name: None if name in works else "no driver")
    return works


def test_egl_first_then_osmesa(broken):
    broken |= {"mujoco.osmesa"}
    assert choose_backend({}) == "mujoco.osmesa"
    broken |= {"mujoco.egl"}
    assert choose_backend({}) == "mujoco.egl"
    assert choose_backend({"MUJOCO_GL": "OSMesa"}) == "mujoco.osmesa"


@pytest.mark.parametrize(("environ", "tried"), [({}, ["egl", "osmesa"]), ({"MUJOCO_GL": "egl"}, ["egl"])])
def test_without_opengl_the_message_says_what_was_tried_and_what_helps(broken, environ, tried):
    with pytest.raises(NoRenderer) as error:
        choose_backend(environ)
    message = str(error.value)
    assert all(f"{name}: no driver" in message for name in tried)
    assert "MUJOCO_GL" in message and "libosmesa6" in message and "\n" not in message


def test_a_word_that_means_no_drawing(broken):
    with pytest.raises(NoRenderer, match="disable: MUJOCO_GL does not mean a way to draw"):
        choose_backend({"MUJOCO_GL": "disable"})


def test_a_backend_that_cannot_be_imported_is_found_out_elsewhere():
    assert "no_such_backend" in str(module._trouble("no_such_backend"))
