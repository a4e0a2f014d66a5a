"""MuJoCo's own C engine inside compiled JAX code.

One environment step is one host call for *all* worlds: `jax.pure_callback` hands the batch to a pool of
threads (`mujoco.rollout`). The physics state stays what MuJoCo computes with, float64, although the rest of
the program is float32: it travels as its raw bits, two `uint32` words a number, so that nothing is rounded
between two calls and a rollout equals a bare MuJoCo loop bit for bit.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import os
import threading
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, UInt32
from mujoco.rollout import Rollout

FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
CONTROL = mujoco.mjtState.mjSTATE_CTRL
NO_WARMSTART = mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
NO_SENSORS = mujoco.mjtDisableBit.mjDSBL_SENSOR.value


class PhysicsState(eqx.Module):
    """What one world is (bits) and what its sensors say of it (sensors, SI units, MJCF order)."""

    bits: UInt32[Array, "*batch words"]
    sensors: Float[Array, "*batch sensors"]


class MujocoC:
    """Batched stepping of one MJCF model on CPU threads.

    An environment step is `substeps` MuJoCo steps under one control, then one more forward pass, because
    `mj_step` evaluates sensors *before* it integrates: the sensors returned belong to the state returned.
    That pass is the only one that evaluates sensors; they do not act on the motion.
    """

    def __init__(self, mjcf: Path, substeps: int, threads: int | None = None):
        self.model = _load(mjcf, NO_WARMSTART)
        self._moving = _load(mjcf, NO_WARMSTART | NO_SENSORS)
        self.substeps = substeps
        self.state_size = mujoco.mj_stateSize(self.model, FULL_PHYSICS.value)
        self.sensor_size = self.model.nsensordata
        self.control_size = self.model.nu
        threads = threads or os.cpu_count() or 1
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)  # 0: MuJoCo's word for "the calling thread"
        self._lock = threading.Lock()  # the pool and its MjData serve one call at a time

    @property
    def seconds_per_step(self) -> float:
        """Simulated time of one environment step, in seconds."""
        return self.substeps * self.model.opt.timestep

    def reset(self, qpos: Float[Array, " nq"], qvel: Float[Array, " nv"]) -> PhysicsState:
        """A world at time 0 with positions `qpos` and velocities `qvel`, its sensors evaluated."""
        return self._call(self._host_reset, _as_words(qpos), _as_words(qvel))

    def step(self, state: PhysicsState, control: Float[Array, " nu"]) -> PhysicsState:
        """Advance one environment step under `control` (MuJoCo clamps it to the actuators' range)."""
        return self._call(self._host_step, state.bits, _as_words(control))

    def _call(self, host: Callable[[np.ndarray], np.ndarray], *parts: UInt32[Array, " _"]) -> PhysicsState:
        # One array in and one out, as words: every further array costs the callback another 50 microseconds.
        packed = jnp.concatenate(parts)
        size = 2 * self.state_size
        result = jax.ShapeDtypeStruct((size + self.sensor_size,), jnp.uint32)
        # broadcast_all: nested vmaps (tasks, episodes) become leading axes of a single host call.
        words = jax.pure_callback(host, result, packed, vmap_method="broadcast_all")
        return PhysicsState(words[:size], jax.lax.bitcast_convert_type(words[size:], jnp.float32))

    def _host_reset(self, packed) -> np.ndarray:
        start = np.asarray(packed).view(np.float32).astype(np.float64)
        worlds = start.reshape(-1, start.shape[-1])
        data = mujoco.MjData(self.model)
        state = np.empty((len(worlds), self.state_size))
        for i, world in enumerate(worlds):
            data.qpos, data.qvel = world[: self.model.nq], world[self.model.nq :]
            mujoco.mj_getState(self.model, data, state[i], FULL_PHYSICS.value)
        return self._sense(state, np.zeros((len(state), self.control_size)), start.shape[:-1])

    def _host_step(self, packed) -> np.ndarray:
        words = np.asarray(packed)
        worlds = words.reshape(-1, words.shape[-1])
        split = 2 * self.state_size
        state = np.ascontiguousarray(worlds[:, :split]).view(np.float64)
        control = np.ascontiguousarray(worlds[:, split:]).view(np.float32).astype(np.float64)
        after = self._advance(self._moving, state, control, self.substeps)[0][:, -1]
        return self._sense(np.ascontiguousarray(after), control, words.shape[:-1])

    def _sense(self, state: np.ndarray, control: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
        """The state [N, s] with its sensors as words: uint32 [*batch, 2 s + y]."""
        sensors = self._advance(self.model, state, control, 1)[1][:, 0]
        words = [state.view(np.uint32), sensors.astype(np.float32).view(np.uint32)]
        return np.concatenate(words, axis=1).reshape(*batch, -1)

    def _advance(
        self, model: mujoco.MjModel, state: np.ndarray, control: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`steps` MuJoCo steps of all worlds: states [N, steps, s] after, sensors [N, steps, y] before each."""
        worlds = len(state)
        states = np.empty((worlds, steps, self.state_size))
        sensors = np.empty((worlds, steps, self.sensor_size))
        with self._lock:
            self._pool.rollout(
                [model] * worlds,
                self._data,
                state,
                np.repeat(control[:, None, :], steps, axis=1),
                control_spec=CONTROL.value,
                skip_checks=True,
                nstep=steps,
                state=states,
                sensordata=sensors,
            )
        return states, sensors


def _load(mjcf: Path, disable: int) -> mujoco.MjModel:
    """The model with flags of mjtDisableBit. Without warm start the result cannot depend on where calls cut."""
    model = mujoco.MjModel.from_xml_path(str(mjcf))
    model.opt.disableflags |= disable
    return model


def _as_words(x: Float[Array, " k"]) -> UInt32[Array, " k"]:
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
