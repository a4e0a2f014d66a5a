"""MuJoCo's own C engine inside compiled JAX code.

One environment step is one host call for *all* worlds, which hands the batch to a pool of threads
(`mujoco.rollout`). The physics state stays what MuJoCo computes with, float64, although the rest of
the program is float32: it travels as its raw bits, two `uint32` words a number, so that nothing is rounded
between two calls and a rollout equals a bare MuJoCo loop bit for bit.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import math
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from metacpo.envs.gymnasium.host_call import host_call
from metacpo.envs.physics.model import check_places, for_moving, load
from metacpo.envs.physics.mujoco_warnings import Listening
from metacpo.envs.physics.pools import FULL_PHYSICS, Pool, Pools
from metacpo.envs.physics.state import PhysicsState
from metacpo.envs.physics.vary import Models, Params, Varied, Vary, as_params
from metacpo.runtime.devices import calls_at_once

HostState = tuple[np.ndarray, np.ndarray]  # bits [*batch, words], and all of PhysicsState's numbers in one array


class MujocoC:
    """Batched stepping of one MJCF model on CPU threads.

    An environment step is `substeps` MuJoCo steps under one control, then one more forward pass, because
    `mj_step` evaluates sensors *before* it integrates: the sensors returned belong to the state returned.
    That pass is the only one that evaluates sensors without a history (see `model.for_moving`).

    A world in which MuJoCo warned (a number that is not finite or beyond 1e10, a full buffer, a control that is no
    number) is broken: all that is seen of it is NaN from then on, so that whoever learns leaves it out and counts it.
    MuJoCo itself would put it back to its start and go on. `warning` is what it said first.

    Objects that do not move but stand elsewhere in every world are MuJoCo's mocap bodies: their `places` [mocaps, 3]
    (m) go into every call beside the control, and are no part of the state. A model without any takes none.
    """

    def __init__(self, mjcf: Path, substeps: int, threads: int | None = None, vary: Vary | None = None):
        self.mjcf, self.model = mjcf, load(mjcf)
        self._fixed = Models(self.model, for_moving(self.model))
        self.varied = None if vary is None else Varied(self._fixed, vary)
        self.warning: str | None = None
        self.substeps = substeps
        self.state_size = mujoco.mj_stateSize(self.model, FULL_PHYSICS.value)
        self.sensor_size = self.model.nsensordata
        self.control_size = self.model.nu
        self.mocaps = self.model.nmocap
        self._seen = (self.sensor_size, self.model.nq, self.model.nv, self.model.na)
        self._pools = Pools(self.model, threads or os.cpu_count() or 1)
        self._lock = threading.Lock()  # around what calls that come at once share

    @property
    def seconds_per_step(self) -> float:
        """Simulated time of one environment step, in seconds."""
        return self.substeps * self.model.opt.timestep

    def reset(
        self,
        qpos: Float[Array, " nq"],
        qvel: Float[Array, " nv"],
        places: Float[Array, "mocaps 3"] | None = None,
        params: Mapping[str, Float[Array, ""]] | None = None,
    ) -> PhysicsState:
        """A world at time 0 with positions `qpos` and velocities `qvel`, its sensors evaluated."""
        held = self._held(jnp.zeros(self.control_size, qpos.dtype), places)
        varied = () if self.varied is None else as_params(params)
        return self._call(self._host_reset, varied, qpos, qvel, held)

    def model_of(self, params: Mapping[str, float]) -> mujoco.MjModel:
        """The model of a task with these parameters."""
        return self.model if self.varied is None else self.varied.make(params)

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"], places: Float[Array, "mocaps 3"] | None = None
    ) -> PhysicsState:
        """Advance one environment step under `control` (MuJoCo clamps it to the actuators' range)."""
        return self._call(self._host_step, state.varied, state.bits, self._held(control, places))

    def _held(self, control: Float[Array, " nu"], places: Float[Array, "mocaps 3"] | None) -> Float[Array, " held"]:
        """What stays the same during a call, as one vector."""
        check_places(self.model, places)
        return control if places is None else jnp.concatenate([control, places.ravel()])

    def _call(self, host: Callable[..., HostState], varied: Params | tuple[()], *inputs: Array) -> PhysicsState:
        bits = jax.ShapeDtypeStruct((2 * self.state_size,), jnp.uint32)
        seen = jax.ShapeDtypeStruct((sum(self._seen),), jnp.float32)
        if varied:
            host, inputs = partial(host, names=tuple(varied)), (*inputs, jnp.stack(list(varied.values())))
        calls = calls_at_once()
        self._pools.prepare(calls)
        bits, seen = host_call(partial(host, calls), (bits, seen), *inputs)
        sensors, qpos, qvel, act = jnp.split(seen, np.cumsum(self._seen)[:-1], axis=-1)
        return PhysicsState(sensors, qpos, qvel, act, bits, varied)

    def _host_reset(self, calls: int, qpos, qvel, held, values=None, names: tuple[str, ...] = ()) -> HostState:
        qpos, qvel = np.asarray(qpos, np.float64), np.asarray(qvel, np.float64)
        batch = qpos.shape[:-1]
        data = mujoco.MjData(self.model)
        state = np.empty((math.prod(batch), self.state_size))
        starts = zip(qpos.reshape(-1, self.model.nq), qvel.reshape(-1, self.model.nv), state, strict=True)
        for data.qpos, data.qvel, world in starts:
            mujoco.mj_getState(self.model, data, world, FULL_PHYSICS.value)
        held = np.asarray(held, np.float64)
        with self._pools.one(calls) as pool, Listening() as said:
            sensing, _ = self._models(names, values, len(state))
            state[[self.varied is not None and model is self.model for model in sensing]] = np.nan  # none was made
            seen = self._sense(pool, sensing, state, held.reshape(len(state), held.shape[-1]), said)
        return _shaped(state, seen, batch)

    def _host_step(self, calls: int, bits, held, values=None, names: tuple[str, ...] = ()) -> HostState:
        bits, held = np.asarray(bits), np.asarray(held, np.float64)
        state = bits.view(np.float64).reshape(-1, self.state_size)
        held = held.reshape(len(state), held.shape[-1])
        with self._pools.one(calls) as pool, Listening() as said:
            sensing, moving = self._models(names, values, len(state))
            after, _, warning = pool.advance(moving, state, held, self.substeps, said)
            self.warning = self.warning or warning
            seen = self._sense(pool, sensing, after, held, said)
        return _shaped(after, seen, bits.shape[:-1])

    def _models(self, names: tuple[str, ...], values, worlds: int) -> tuple[list[Any], list[Any]]:
        """Those of each world, to sense with and to move; the fixed ones where its task makes none."""
        if self.varied is None:
            return [self._fixed.sensing] * worlds, [self._fixed.moving] * worlds
        with self._lock:
            models = self.varied.of(names, np.asarray(values, np.float32).reshape(worlds, len(names)))
        self.warning = self.warning or self.varied.refusal
        return models

    def _sense(self, pool: Pool, models: list[Any], state: np.ndarray, held: np.ndarray, said: list[str]) -> np.ndarray:
        """What is seen of the state [N, s]: sensors, then qpos, qvel and act. Makes all NaN that MuJoCo warned of."""
        seen = np.empty((len(state), sum(self._seen)), np.float32)
        after, seen[:, : self.sensor_size], warning = pool.advance(models, state, held, 1, said)
        self.warning = self.warning or warning
        state[np.isnan(after[:, 0])] = np.nan  # MuJoCo warned of the state itself
        seen[:, self.sensor_size :] = state[:, 1 : 1 + sum(self._seen[1:])]  # MuJoCo's order: time, qpos, qvel, act, …
        return seen


def _shaped(state: np.ndarray, seen: np.ndarray, batch: tuple[int, ...]) -> HostState:
    """The states [N, s] as bits [*batch, 2 s], and what is seen of them."""
    return state.view(np.uint32).reshape(*batch, -1), seen.reshape(*batch, -1)
