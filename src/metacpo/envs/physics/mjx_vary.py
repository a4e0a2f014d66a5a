"""MJX's models of tasks: the numbers of the model that a task changes, as arrays with one row for each world."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from metacpo.envs.gymnasium.host_call import host_call
from metacpo.envs.physics.model import PhysicsError, for_moving
from metacpo.envs.physics.vary import Models, Params, Varied, Vary, as_params, changed, words

PICTURES = ("mat_", "light_", "cam_", "key_")
OPTIONS = ("gravity", "wind", "magnetic", "density", "viscosity")
SHORTCUTS = ("geom_sameframe", "site_sameframe", "body_sameframe", "opt.disableflags", "bvh_aabb")  # MJX takes none
# MJX compiles what these do only where the MJCF has some of it.
ABSENT = (
    "dof_frictionloss",
    "tendon_frictionloss",
    "geom_margin",
    "geom_gap",
    "opt.density",
    "opt.viscosity",
    "opt.wind",
)


class VariedLeaves:
    """What `vary` may change of an MJX model: all its numbers, but none of what MJX fixes when it is compiled."""

    def __init__(self, model: mujoco.MjModel, put: Any, vary: Vary, mjcf: str):
        self._base, self._mjcf = model, mjcf
        self._models = Varied(Models(model, for_moving(model)), vary, self.refuse)
        self._fields = tuple(name for name in put.__dataclass_fields__ if self._is_number(name, put))
        self._options = tuple(f"opt.{name}" for name in OPTIONS)

    def _is_number(self, name: str, put: Any) -> bool:
        value, there = getattr(put, name), getattr(self._base, name, None)
        if _drawn(name) or not isinstance(there, np.ndarray):
            return False
        return (
            isinstance(value, jax.Array) and value.dtype.kind == "f" and value.shape == there.shape and value.size > 0
        )

    def make(self, params: Mapping[str, float]) -> mujoco.MjModel:
        """The model of one task. Raises PhysicsError for what MJX cannot vary, too."""
        return self._models.make(params)

    def refuse(self, model: mujoco.MjModel, params: Mapping[str, float]) -> None:
        """Raises PhysicsError where MJX would take no notice of something that was edited."""
        edited = {name for name in changed(self._base, model) if not _drawn(name)}
        fixed = edited - {*self._fields, *self._options, *SHORTCUTS}
        appears = {name for name in ABSENT if np.any((_value(self._base, name) == 0) & (_value(model, name) != 0))}
        for name in sorted(fixed | appears):
            why = "which is 0 in the MJCF" if name in appears else "which is a part of its program"
            raise PhysicsError(
                f"vary: mjx cannot vary {name} of {self._mjcf}, {why}; take physics 'mujoco', at {words(params)}"
            )

    def leaves(self, params: Mapping[str, Float[Array, ""]] | None) -> dict[str, Array]:
        """The numbers of this task's model, by name; NaN where it has none."""
        known: Params = as_params(params)
        names = (*self._fields, *self._options)
        shapes = tuple(jax.ShapeDtypeStruct(_value(self._base, name).shape, jnp.float32) for name in names)
        host = partial(self._host, tuple(known), names)
        return dict(zip(names, host_call(host, shapes, jnp.stack(list(known.values()))), strict=True))

    def _host(self, params: tuple[str, ...], names: tuple[str, ...], values) -> list[np.ndarray]:
        values = np.asarray(values, np.float32)
        models, _ = self._models.of(params, values.reshape(-1, len(params)))
        found = []
        for name in names:
            rows = [_value(m, name) if m is not self._base else _value(m, name) * np.nan for m in models]
            found.append(np.asarray(rows, np.float32).reshape(*values.shape[:-1], *rows[0].shape))
        return found


def with_leaves(put: Any, leaves: dict[str, Array]) -> Any:
    """The MJX model with these numbers in place of its own."""
    options = {name.removeprefix("opt."): value for name, value in leaves.items() if name.startswith("opt.")}
    numbers = {name: value for name, value in leaves.items() if not name.startswith("opt.")}
    own = {name: value.astype(getattr(put, name).dtype) for name, value in numbers.items()}
    options = {name: value.astype(getattr(put.opt, name).dtype) for name, value in options.items()}
    return put.replace(opt=put.opt.replace(**options), **own)


def _drawn(name: str) -> bool:
    """Whether it is for pictures alone."""
    return name.startswith(PICTURES) or name.endswith("_rgba")


def _value(model: mujoco.MjModel, name: str) -> np.ndarray:
    return np.asarray(getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name), np.float64)
