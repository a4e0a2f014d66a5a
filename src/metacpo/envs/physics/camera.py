"""Pictures of a MuJoCo model without a screen: its bodies, and the scene's shapes on the floor between them."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import copy
import functools
import importlib
import itertools
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import mujoco
import numpy as np

from metacpo.envs.scene import Disc, Ring, Scene, Wall, grid_step

# MUJOCO_GL's words and the modules that they mean. Ours are imported by name: MuJoCo itself reads the variable only
# once, when it is first imported, and that was long before anybody asked for a picture.
BACKENDS = {"egl": "mujoco.egl", "osmesa": "mujoco.osmesa", "glfw": "mujoco.glfw", "cgl": "mujoco.cgl"}
USUAL = {"Darwin": ("cgl",), "Windows": ("glfw",)}
HEADLESS = ("egl", "osmesa")
PROBE_SECONDS = 60
PROBE = "import sys; from importlib import import_module as f; c = f(sys.argv[1]).GLContext(8, 8); c.make_current()"

ELEVATION, FIELD_OF_VIEW = -60.0, 40.0  # degrees
FLOOR = (0.965, 0.97, 0.976, 1.0)
LINES = (0.89, 0.905, 0.92, 1.0)
MOST_GEOMS = 4000
FLAT, WALL_HEIGHT, GOAL_HEIGHT = 0.004, 0.25, 0.25  # m
SEGMENTS = 96

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


class NoRenderer(Exception):
    """OpenGL works in no way that was tried; the message says which, and what helps."""


def choose_backend(environ: Mapping[str, str] = os.environ) -> str:
    """The module of the GL backend to use: MUJOCO_GL's if it is set, else the first that works here."""
    asked = environ.get("MUJOCO_GL", "").strip().lower()
    if asked in ("", "enable", "enabled", "on", "true", "1"):
        names = USUAL.get(platform.system(), HEADLESS)
    else:
        names = ("glfw",) if asked == "glx" else (asked,)
    failures = []
    for name in names:
        trouble = _trouble(BACKENDS[name]) if name in BACKENDS else "MUJOCO_GL does not mean a way to draw"
        if trouble is None:
            return BACKENDS[name]
        failures.append(f"{name}: {trouble}")
    raise NoRenderer(
        f"no OpenGL without a screen ({'; '.join(failures)}); install libegl1 and a driver, or libosmesa6, "
        "or set MUJOCO_GL to one that works"
    )


@functools.cache
def _trouble(module: str) -> str | None:
    """Why a backend cannot be used, or None. Another process finds out: a driver's crash would end this one, and
    PyOpenGL stays with the platform that it was first imported with."""
    environ = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    command = [sys.executable, "-c", PROBE, module]
    try:
        probe = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} s"
    if probe.returncode == 0:
        return None
    said = probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"]
    return said[-1][:160]


class Camera:
    """Draws worlds of one model as pictures [height, width, 3], looking down on the square that `look_at` sets.

    Use as a context manager: it holds an OpenGL context.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, palette: Mapping[str, Colour]):
        self.palette = palette
        self.half = 1.0
        self._size = width, height
        self._model = _styled(model, width, height, palette)
        self._data = mujoco.MjData(self._model)
        self._gl, self._drawing = _open(self._model, width, height)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._drawing)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(self._model, maxgeom=MOST_GEOMS)
        for effect in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SHADOW):
            self._scene.flags[effect.value] = 0  # shadows: twice the time in software, and specks on the floor
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.azimuth, self._camera.elevation = 90.0, ELEVATION

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._gl.make_current()
        self._drawing.free()
        self._gl.free()

    def show(self, model: mujoco.MjModel) -> None:
        """Another model of the same bodies, as a task changed it."""
        self._model = _styled(model, *self._size, self.palette)

    def look_at(self, centre: tuple[float, float], half: float) -> None:
        """Show the square of half-width `half` (m) round `centre`."""
        self.half = half
        self._camera.lookat[:] = (*centre, 0.0)
        self._camera.distance = 1.12 * half / math.tan(math.radians(FIELD_OF_VIEW / 2))

    def frame(
        self,
        qpos: np.ndarray,
        places: np.ndarray | None,
        shapes: Scene,
        trail: Sequence[tuple[float, float, bool]] = (),
    ) -> np.ndarray:
        """One picture, uint8. qpos [nq]; places [mocaps, 3] (m); trail: x, y (m) and whether that step had cost."""
        data = self._data
        data.qpos[:] = qpos
        if places is not None:
            data.mocap_pos[:] = places
        mujoco.mj_forward(self._model, data)
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, every, self._scene)
        self._grid()
        for shape in shapes:
            self._shape(shape)
        for (x, y, _), (u, v, unsafe) in itertools.pairwise(trail):
            self._line((x, y), (u, v), 0.007 * self.half, self.palette["unsafe" if unsafe else "path"], 0.012)
        picture = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._drawing)
        mujoco.mjr_readPixels(picture, None, self._rect, self._drawing)
        return np.flipud(picture)

    def _shape(self, shape: Disc | Ring | Wall) -> None:
        colour = self.palette[shape.role]
        kind = mujoco.mjtGeom
        if isinstance(shape, Wall):
            half = min(shape.half, 3 * self.half)
            size, place = (0.008, half, WALL_HEIGHT / 2), (shape.x, 0.0, WALL_HEIGHT / 2)
            self._geom(kind.mjGEOM_BOX, size, place, (*colour, 0.45))
        elif isinstance(shape, Ring):
            corners = [2 * math.pi * i / SEGMENTS for i in range(SEGMENTS + 1)]
            points = [(shape.x + shape.radius * math.cos(a), shape.y + shape.radius * math.sin(a)) for a in corners]
            for start, end in zip(points[:-1:2], points[1::2], strict=True):
                self._line(start, end, 0.006 * self.half, colour, 0.006)
        else:
            tall = shape.role == "goal"
            height = GOAL_HEIGHT if tall else FLAT
            size = (shape.radius * (1.3 if tall else 1.0), height / 2, 0.0)
            self._geom(kind.mjGEOM_CYLINDER, size, (shape.x, shape.y, height / 2), (*colour, 0.35 if tall else 0.6))

    def _grid(self) -> None:
        """Lines on the floor, as far as the camera sees."""
        apart, (x, y) = grid_step(self.half), self._camera.lookat[:2]
        thick, long, tall = 0.006 * self.half, 4 * self.half, FLAT / 8
        for i in range(-math.ceil(long / apart), math.ceil(long / apart) + 1):
            east, north = apart * (round(x / apart) + i), apart * (round(y / apart) + i)
            self._geom(mujoco.mjtGeom.mjGEOM_BOX, (thick, long, tall), (east, y, 0.0), LINES)
            self._geom(mujoco.mjtGeom.mjGEOM_BOX, (long, thick, tall), (x, north, 0.0), LINES)

    def _line(
        self, start: tuple[float, float], end: tuple[float, float], radius: float, colour: Colour, height: float
    ) -> None:
        geom = self._geom(mujoco.mjtGeom.mjGEOM_CAPSULE, (radius, radius, radius), (0.0, 0.0, 0.0), (*colour, 1.0))
        if geom is not None:
            ends = np.array([*start, height]), np.array([*end, height])
            mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE.value, radius, *ends)

    def _geom(self, kind: Any, size: Sequence[float], place: Sequence[float], rgba: Sequence[float]) -> Any:
        """A shape beside the model's, lit evenly; None where the scene is full."""
        scene = self._scene
        if scene.ngeom >= scene.maxgeom:
            return None
        geom = scene.geoms[scene.ngeom]
        turn = np.eye(3).ravel()
        mujoco.mjv_initGeom(geom, kind.value, np.array(size), np.array(place), turn, np.array(rgba, np.float32))
        geom.emission, geom.specular = 0.0, 0.0
        geom.category = mujoco.mjtCatBit.mjCAT_DECOR.value
        scene.ngeom += 1
        return geom


def _open(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """An OpenGL context, made the current one, and MuJoCo's drawing in it."""
    backend = choose_backend()
    try:
        context = importlib.import_module(backend).GLContext(width, height)
        context.make_current()
        return context, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except (ImportError, RuntimeError, AttributeError, mujoco.FatalError) as error:  # the probe's process was luckier
        raise NoRenderer(f"no OpenGL in this process ({' '.join(str(error).split())})") from error


def _styled(model: mujoco.MjModel, width: int, height: int, palette: Mapping[str, Colour]) -> mujoco.MjModel:
    """A copy in the palette's colours, on an endless bright floor, with room for pictures of this size."""
    model = copy.copy(model)
    view = model.vis
    view.global_.offwidth, view.global_.offheight, view.global_.fovy = width, height, FIELD_OF_VIEW
    view.quality.offsamples = 4
    view.headlight.ambient[:], view.headlight.diffuse[:], view.headlight.specular[:] = 0.5, 0.2, 0.0
    model.light_type[:] = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL.value
    model.light_diffuse[:], model.light_specular[:] = 0.35, 0.0
    model.light_dir[:] = np.array([0.3, 0.25, -1.0]) / np.linalg.norm([0.3, 0.25, -1.0])
    bodies = model.geom_bodyid
    model.geom_rgba[:, :3] = palette["robot"]
    model.geom_rgba[:, 3] = 1.0
    mocap = model.body_mocapid[bodies] >= 0
    model.geom_rgba[mocap, :3] = palette["button"]
    floor = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE.value
    model.geom_rgba[floor] = FLOOR
    model.geom_size[floor, :2] = 0.0  # MuJoCo's word for endless
    model.site_rgba[:, 3] = 0.0
    return model
