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
from mujoco.rollout import Rollout

from metacpo.envs.gymnasium.host_call import host_call
from metacpo.envs.physics.model import check_places, for_moving, load
from metacpo.envs.physics.mujoco_warnings import Listening
from metacpo.envs.physics.state import PhysicsState
from metacpo.envs.physics.vary import Models, Params, Varied, Vary, as_params

FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
CONTROL = mujoco.mjtState.mjSTATE_CTRL
PLACES = mujoco.mjtState.mjSTATE_MOCAP_POS

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
        self._given = CONTROL.value | (PLACES.value if self.mocaps else 0)  # what a call is told, in this order
        threads = threads or os.cpu_count() or 1
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)  # 0: MuJoCo's word for "the calling thread"
        self._alone = Rollout(nthread=0)
        self._lock = threading.Lock()  # the pool and its MjData serve one call at a time

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
        bits, seen = host_call(host, (bits, seen), *inputs)
        sensors, qpos, qvel, act = jnp.split(seen, np.cumsum(self._seen)[:-1], axis=-1)
        return PhysicsState(sensors, qpos, qvel, act, bits, varied)

    def _host_reset(self, qpos, qvel, held, values=None, names: tuple[str, ...] = ()) -> HostState:
        qpos, qvel = np.asarray(qpos, np.float64), np.asarray(qvel, np.float64)
        batch = qpos.shape[:-1]
        data = mujoco.MjData(self.model)
        state = np.empty((math.prod(batch), self.state_size))
        starts = zip(qpos.reshape(-1, self.model.nq), qvel.reshape(-1, self.model.nv), state, strict=True)
        for data.qpos, data.qvel, world in starts:
            mujoco.mj_getState(self.model, data, world, FULL_PHYSICS.value)
        held = np.asarray(held, np.float64)
        with self._lock, Listening() as said:
            sensing, _ = self._models(names, values, len(state))
            state[[self.varied is not None and model is self.model for model in sensing]] = np.nan  # none was made
            return self._sense(sensing, state, held.reshape(len(state), held.shape[-1]), batch, said)

    def _host_step(self, bits, held, values=None, names: tuple[str, ...] = ()) -> HostState:
        bits, held = np.asarray(bits), np.asarray(held, np.float64)
        state = bits.view(np.float64).reshape(-1, self.state_size)
        held = held.reshape(len(state), held.shape[-1])
        with self._lock, Listening() as said:
            sensing, moving = self._models(names, values, len(state))
            after = self._advance(moving, state, held, self.substeps, said)[0]
            return self._sense(sensing, after, held, bits.shape[:-1], said)

    def _models(self, names: tuple[str, ...], values, worlds: int) -> tuple[list[Any], list[Any]]:
        """Those of each world, to sense with and to move; the fixed ones where its task makes none."""
        if self.varied is None:
            return [self._fixed.sensing] * worlds, [self._fixed.moving] * worlds
        models = self.varied.of(names, np.asarray(values, np.float32).reshape(worlds, len(names)))
        self.warning = self.warning or self.varied.refusal
        return models

    def _sense(
        self, models: list[Any], state: np.ndarray, held: np.ndarray, batch: tuple[int, ...], said: list[str]
    ) -> HostState:
        """The state [N, s] as bits [*batch, 2 s], and as what is seen of it: sensors, then qpos, qvel and act."""
        seen = np.empty((len(state), sum(self._seen)), np.float32)
        after, seen[:, : self.sensor_size] = self._advance(models, state, held, 1, said)
        state[np.isnan(after[:, 0])] = np.nan  # MuJoCo warned of the state itself
        seen[:, self.sensor_size :] = state[:, 1 : 1 + sum(self._seen[1:])]  # MuJoCo's order: time, qpos, qvel, act, …
        return state.view(np.uint32).reshape(*batch, -1), seen.reshape(*batch, -1)

    def _advance(
        self, models: list[Any], state: np.ndarray, held: np.ndarray, steps: int, said: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`steps` MuJoCo steps of all worlds: states [N, s] after the last, sensors [N, y] before the first.

        Those of a broken world are NaN, and so is all that becomes of it.
        """
        before = len(said)
        states, sensors = self._rollout(self._pool, self._data, models, state, held, steps)
        after = np.ascontiguousarray(states[:, -1])
        # MuJoCo warns at least once for each world that it stops, and the time of one that it put back is too early.
        broken = ~(after[:, 0] > state[:, 0] + (steps - 0.5) * self.model.opt.timestep)
        warnings = len(said) - before
        if warnings > np.count_nonzero(broken):  # some are not told by their time
            broken = broken | self._warned(models, state, held, steps)
        if broken.any():
            self.warning = self.warning or (said[before] if warnings else None)
            after[broken], sensors[broken] = np.nan, np.nan
        return after, sensors[:, 0]

    def _warned(self, models: list[Any], state: np.ndarray, held: np.ndarray, steps: int) -> np.ndarray:
        """Which worlds [N] MuJoCo warns of: each is moved alone, because a thread's counters are of its last world."""
        warned = np.zeros(len(state), bool)
        for i in range(len(state)):
            self._rollout(self._alone, self._data[:1], models[i : i + 1], state[i : i + 1], held[i : i + 1], steps)
            warned[i] = self._data[0].warning.number.any()
        return warned

    def _rollout(
        self, pool: Rollout, data: list[Any], models: list[Any], state: np.ndarray, held: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """States [N, steps, s] after each step, sensors [N, steps, y] before it."""
        states = np.empty((len(state), steps, self.state_size))
        sensors = np.empty((len(state), steps, self.sensor_size))
        pool.rollout(
            models,
            data,
            state,
            np.repeat(held[:, None, :], steps, axis=1),
            control_spec=self._given,
            skip_checks=True,
            nstep=steps,
            state=states,
            sensordata=sensors,
        )
        return states, sensors
