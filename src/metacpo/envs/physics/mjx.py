"""MJX: the same models inside the compiled program, in JAX or on MuJoCo Warp.

For thousands of worlds on an accelerator. On a CPU it is 15 to 200 times slower than MuJoCo's C engine, but it works
there, so that it can be tested everywhere. Everything is float32, also the state.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Bool, Float
from mujoco import mjx

from metacpo.envs.physics.mjx_vary import VariedLeaves, with_leaves
from metacpo.envs.physics.model import PhysicsError, check_places, for_moving, load, remembers
from metacpo.envs.physics.state import PhysicsState
from metacpo.envs.physics.vary import Vary


def check_installed(name: str) -> None:
    """Raises PhysicsError unless MJX is of MuJoCo's minor version and, for "warp", Warp and its GPU are there.

    MJX reads MuJoCo's structures by name: of another version it may fail, or compute something else.
    """
    wanted, found = mujoco.__version__, version("mujoco-mjx")
    if wanted.split(".")[:2] != found.split(".")[:2]:
        minor = ".".join(found.split(".")[:2])
        raise PhysicsError(
            f"physics: {name!r} is mujoco-mjx {found}, but mujoco is {wanted}; pip install 'mujoco=={minor}.*'"
        )
    if name == "warp":
        if find_spec("warp") is None:
            raise PhysicsError("physics: 'warp' is not installed (no module warp); pip install 'metacpo[warp]'")
        if jax.default_backend() != "gpu":
            raise PhysicsError("physics: 'warp' needs an NVIDIA GPU, JAX has none here; take 'mjx' or 'mujoco'")


class Mjx:
    """One MJCF model on MJX; see `engines.Physics`. Raises PhysicsError for what MJX cannot simulate."""

    def __init__(self, mjcf: Path, substeps: int, impl: str = "jax", vary: Vary | None = None):
        self.model = load(mjcf)
        if remembers(self.model):
            raise PhysicsError(f"physics: mjx knows no history (nsample) of {mjcf.name}; take physics 'mujoco'")
        if vary is not None and impl != "jax":
            raise PhysicsError(f"vary: {impl} has one model for all worlds; take physics 'mujoco' or 'mjx'")
        self.mjcf, self.substeps = mjcf, substeps
        # An environment may make its physics while it is traced: these are constants, not part of that program.
        with jax.ensure_compile_time_eval(), _as_mjx_counts():
            self._sensing = _put(self.model, mjcf, impl)
            self._moving = _put(for_moving(self.model), mjcf, impl)
            self._data = mjx.make_data(self.model, impl=impl)
        self.varied = None if vary is None else VariedLeaves(self.model, self._sensing, vary, mjcf.name)
        # MJX in JAX leaves a model without constraints before it evaluates the accelerations' sensors.
        self._unconstrained = impl == "jax" and self._data._impl.efc_J.size == 0

    @property
    def seconds_per_step(self) -> float:
        return self.substeps * self.model.opt.timestep

    def reset(
        self,
        qpos: Float[Array, " nq"],
        qvel: Float[Array, " nv"],
        places: Float[Array, "mocaps 3"] | None = None,
        params: Mapping[str, Float[Array, ""]] | None = None,
    ) -> PhysicsState:
        data = self._at(qpos, qvel, jnp.zeros(self.model.na, qpos.dtype), jnp.zeros(self.model.nu, qpos.dtype), places)
        return self._sensed(data, () if self.varied is None else self.varied.leaves(params))

    def model_of(self, params: Mapping[str, float]) -> mujoco.MjModel:
        return self.model if self.varied is None else self.varied.make(params)

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"], places: Float[Array, "mocaps 3"] | None = None
    ) -> PhysicsState:
        data = self._at(state.qpos, state.qvel, state.act, control, places)
        model = with_leaves(self._moving, state.varied) if state.varied else self._moving

        def substep(data: Any, _: None) -> tuple[Any, Bool[Array, ""]]:
            """One MuJoCo step, and whether MuJoCo's C engine would have gone on from there."""
            moved = mjx.step(model, data)
            return moved, _sound(data.qpos, data.qvel, moved.qacc)

        with _as_mjx_counts():
            moved, sound = jax.lax.scan(substep, data, length=self.substeps)
        there = self._at(moved.qpos, moved.qvel, moved.act, control, places)
        return self._sensed(there, state.varied, jnp.all(sound))

    def _at(self, qpos: Array, qvel: Array, act: Array, control: Array, places: Float[Array, "mocaps 3"] | None) -> Any:
        """MJX's data of a world. Sensors start as NaN: one that MJX does not compute must not look like a number."""
        check_places(self.model, places)
        given = dict(qpos=qpos, qvel=qvel, act=act, ctrl=control, sensordata=jnp.full(self.model.nsensordata, jnp.nan))
        if places is not None:
            given["mocap_pos"] = places
        dtype = self._data.qpos.dtype
        return self._data.replace(**{name: value.astype(dtype) for name, value in given.items()})

    def _sensed(self, data: Any, varied: Any, sound: Bool[Array, ""] | bool = True) -> PhysicsState:
        """What is seen of a world: NaN where the C engine would have warned, then or now."""
        model = with_leaves(self._sensing, varied) if varied else self._sensing
        with _as_mjx_counts():
            data = mjx.forward(model, data)
            if self._unconstrained:
                data = mjx.sensor_acc(model, data)
        sound = sound & _sound(data.qpos, data.qvel, data.qacc) & jnp.all(jnp.isfinite(data.ctrl))
        numbers = data.sensordata, data.qpos, data.qvel, data.act
        sensors, qpos, qvel, act = (jnp.where(sound, seen, jnp.nan) for seen in numbers)
        return PhysicsState(sensors, qpos, qvel, act, jnp.zeros(0, jnp.uint32), varied)


def _sound(*numbers: Array) -> Bool[Array, ""]:
    """Whether all are numbers that MuJoCo does not warn of."""
    return jnp.all(jnp.abs(jnp.concatenate(numbers)) <= mujoco.mjMAXVAL)  # NaN fails the comparison


def _put(model: mujoco.MjModel, mjcf: Path, impl: str) -> Any:
    try:
        return mjx.put_model(model, impl=impl)
    except NotImplementedError as error:
        raise PhysicsError(f"physics: mjx cannot simulate {mjcf.name}: {error}; take physics 'mujoco'") from None


def _as_mjx_counts() -> Any:
    """MJX multiplies numbers with truth values; whoever runs JAX with strict types may still use it."""
    return jax.numpy_dtype_promotion("standard")
