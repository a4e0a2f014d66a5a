"""Robots that a task changes: the model that `vary` makes of the compiled one, for each distinct task."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Float32

from metacpo.envs.physics.model import PhysicsError, flag, for_moving
from metacpo.envs.physics.mujoco_warnings import Listening

MOST = 1024  # tasks whose models are kept; each is some 100 kB
NO_MIDPHASE = mujoco.mjtDisableBit.mjDSBL_MIDPHASE.value
PLACES = ("geom_pos", "geom_quat", "site_pos", "site_quat", "body_ipos", "body_iquat")
STRUCTURE = re.compile(r"(adr|id|num|type)$")  # how fields are called that say what belongs to what

Vary = Callable[[mujoco.MjModel, dict[str, float]], None]
Refuse = Callable[[mujoco.MjModel, Mapping[str, float]], None]  # an engine's own PhysicsError
Params = dict[str, Float[Array, ""]]
Key = tuple[tuple[str, ...], bytes]  # names and values of parameters


class Models(NamedTuple):
    """One task's robot: the model that senses, and the one that is only moved on (see `model.for_moving`)."""

    sensing: mujoco.MjModel
    moving: mujoco.MjModel


def vary_model(base: mujoco.MjModel, vary: Vary, params: Mapping[str, float], scratch: mujoco.MjData) -> mujoco.MjModel:
    """A copy of `base` that `vary` has edited, with MuJoCo's derived constants. scratch: any MjData of `base`.

    Raises PhysicsError, with the parameters, for what vary must not do and for a model that MuJoCo refuses.
    """
    model, where = copy.copy(base), words(params)
    try:
        returned = vary(model, dict(params))
    except Exception as error:  # the user's code
        raise PhysicsError(f"vary: {type(error).__name__}: {' '.join(str(error).split())}, at {where}") from error
    if returned is not None:
        raise PhysicsError(f"vary: returns {type(returned).__name__}, at {where}; edit the model and return nothing")
    for fault in _faults(base, model):
        raise PhysicsError(f"vary: {fault}, at {where}")
    flag(model)
    _fit_shortcuts(base, model)
    refused: list[str] = []
    try:
        with Listening() as refused:
            mujoco.mj_setConst(model, scratch)
    except (ValueError, mujoco.FatalError) as error:
        refused = [str(error)]
    if refused:
        raise PhysicsError(f"vary: MuJoCo refuses the model: {' '.join(refused[0].split())}, at {where}")
    return model


def words(params: Mapping[str, float]) -> str:
    """Parameters as a message shows them."""
    return ", ".join(f"{name}={float(value):g}" for name, value in params.items())


def changed(a: mujoco.MjModel, b: mujoco.MjModel) -> list[str]:
    """The names of the arrays in which two models differ, those of the options as `opt.NAME`."""
    return [name for name, x, y in _pairs(a, b) if not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")]


def _pairs(a: mujoco.MjModel, b: mujoco.MjModel) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for prefix, x, y in (("", a, b), ("opt.", a.opt, b.opt)):
        for name in dir(x):
            value = None if name.startswith("_") else getattr(x, name)
            if isinstance(value, np.ndarray | float | int) and not isinstance(value, bool):
                yield prefix + name, np.asarray(value), np.asarray(getattr(y, name))


def _faults(base: mujoco.MjModel, model: mujoco.MjModel) -> Iterator[str]:
    """What is wrong with what was edited; quick, for it is asked for every task."""
    if model.opt.timestep != base.opt.timestep:
        yield f"opt.timestep is {model.opt.timestep:g}, the MJCF's is {base.opt.timestep:g}; it cannot vary"
    for name in ("body_mass", "body_inertia"):
        now, least = getattr(model, name), np.minimum(getattr(base, name), mujoco.mjMINVAL)
        for place in np.argwhere(~((now >= least) & np.isfinite(now)))[:1]:
            yield f"{name}{place.tolist()} is {now[tuple(place)]:g}; wanted a positive number"
    moved = np.any(model.body_ipos != base.body_ipos, axis=1) | np.any(model.body_iquat != base.body_iquat, axis=1)
    for body in np.flatnonzero(moved & (base.body_simple > 0))[:1]:
        text = f"body_ipos or body_iquat of {model.body(body).name!r} changes, which MuJoCo compiled as fixed"
        yield f"{text}; move the geoms of a child body instead"
    if base.ngravcomp == 0 and model.body_gravcomp.any():
        yield "body_gravcomp is not 0, and 0 in all of the MJCF, so that MuJoCo leaves it out; give one body some there"


def structure_faults(base: mujoco.MjModel, model: mujoco.MjModel) -> Iterator[str]:
    """What else is wrong with it; slower, for check-env."""
    for name in changed(base, model):
        value = np.asarray(getattr(model.opt if "." in name else model, name.removeprefix("opt.")))
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            yield f"{name} is not finite"
        if value.dtype.kind in "iu" and STRUCTURE.search(name):
            yield f"{name} changes, which is how the robot is put together; edit its numbers only"


def _fit_shortcuts(base: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """What the compiler derived from places and sizes and mj_setConst leaves: shortcuts that would ignore the edit."""
    if any(not np.array_equal(getattr(base, name), getattr(model, name)) for name in PLACES):
        for name in ("geom_sameframe", "site_sameframe", "body_sameframe"):
            getattr(model, name)[:] = 0
        model.opt.disableflags |= NO_MIDPHASE  # its boxes are those of the places before
    for i in np.flatnonzero(np.any(base.geom_size != model.geom_size, axis=1)):
        kind, size = int(model.geom_type[i]), model.geom_size[i]
        box = _half_box(kind, size)
        if box is not None:
            model.geom_aabb[i] = np.concatenate([np.zeros(3), box])
            model.geom_rbound[i] = _radius(kind, size)
        model.opt.disableflags |= NO_MIDPHASE


def _half_box(kind: int, size: np.ndarray) -> np.ndarray | None:
    """Half the sides of the box round a geom, in its own frame; None for planes, meshes and the like."""
    round_ = {mujoco.mjtGeom.mjGEOM_CAPSULE.value: size[0] + size[1], mujoco.mjtGeom.mjGEOM_CYLINDER.value: size[1]}
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE.value:
        return np.full(3, size[0])
    if kind in round_:
        return np.array([size[0], size[0], round_[kind]])
    return size.copy() if kind in (mujoco.mjtGeom.mjGEOM_BOX.value, mujoco.mjtGeom.mjGEOM_ELLIPSOID.value) else None


def _radius(kind: int, size: np.ndarray) -> float:
    """Of the sphere round a geom's centre that holds it."""
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE.value:
        return float(size[0] + size[1])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER.value:
        return float(np.hypot(size[0], size[1]))
    return float(np.linalg.norm(size) if kind == mujoco.mjtGeom.mjGEOM_BOX.value else size.max())


class Varied:
    """The models of the tasks met so far, the last `MOST` of them; made on the host, by the values of the parameters.

    `refusal` is why the first task that has no model has none.
    """

    def __init__(self, fixed: Models, vary: Vary, refuse: Refuse | None = None):
        self._fixed, self._vary, self._refuse = fixed, vary, refuse
        self._scratch = mujoco.MjData(fixed.sensing)
        self._known: OrderedDict[Key, Models] = OrderedDict()
        self._last: tuple[Key, tuple[list[Any], list[Any]]] | None = None
        self.refusal: str | None = None

    def of(self, names: tuple[str, ...], values: Float32[np.ndarray, "N p"]) -> tuple[list[Any], list[Any]]:
        """Of N worlds with these parameters: what senses, and what is moved; the fixed ones where none can be made."""
        asked = names, values.tobytes()
        if self._last is None or self._last[0] != asked:  # a rollout asks for the same ones at every step
            models = [self._one(names, row) for row in values]
            self._last = asked, ([m.sensing for m in models], [m.moving for m in models])
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return self._last[1]

    def make(self, params: Mapping[str, float]) -> mujoco.MjModel:
        """The model of one task, made anew. Raises PhysicsError, see `vary_model`."""
        model = vary_model(self._fixed.sensing, self._vary, params, self._scratch)
        if self._refuse is not None:
            self._refuse(model, params)
        return model

    def _one(self, names: tuple[str, ...], row: Float32[np.ndarray, " p"]) -> Models:
        key = names, row.tobytes()
        if key not in self._known:
            try:
                model = self.make(dict(zip(names, row.tolist(), strict=True)))
                self._known[key] = Models(model, for_moving(model))
            except PhysicsError as error:
                self.refusal = self.refusal or str(error)
                self._known[key] = self._fixed
        self._known.move_to_end(key)
        return self._known[key]


def as_params(params: Mapping[str, Float[Array, ""]] | None) -> Params:
    """A task's parameters as a world keeps them, by name. Raises ValueError where there are none."""
    if not params:
        raise ValueError("params: none given, but the model varies with them")
    return {name: jnp.asarray(params[name], jnp.float32) for name in sorted(params)}
