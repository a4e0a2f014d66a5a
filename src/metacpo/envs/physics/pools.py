"""Threads that move MuJoCo's worlds: one pool of them for every call that may come at the same time."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import mujoco
import numpy as np
from mujoco.rollout import Rollout

FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
CONTROL = mujoco.mjtState.mjSTATE_CTRL
PLACES = mujoco.mjtState.mjSTATE_MOCAP_POS

Models = Sequence[mujoco.MjModel]  # one for each world


class Pool:
    """Moves worlds of a model, or of its variations, on a number of threads. It serves one call at a time."""

    def __init__(self, model: mujoco.MjModel, threads: int):
        self._model = model
        self.given = CONTROL.value | (PLACES.value if model.nmocap else 0)  # what a call is told, in this order
        self.data = [mujoco.MjData(model) for _ in range(threads)]
        self.threads = Rollout(nthread=threads if threads > 1 else 0)  # 0: MuJoCo's word for "the calling thread"
        self._alone = Rollout(nthread=0)

    def advance(
        self, models: Models, state: np.ndarray, held: np.ndarray, steps: int, said: list[str]
    ) -> tuple[np.ndarray, np.ndarray, str | None]:
        """`steps` MuJoCo steps of all worlds: states [N, s] after the last, sensors [N, y] before the first.

        Those of a broken world are NaN, and so is all that becomes of it; and what MuJoCo said of the first.
        """
        before = len(said)
        states, sensors = self.rollout(models, state, held, steps)
        after = np.ascontiguousarray(states[:, -1])
        # MuJoCo warns at least once for each world that it stops, and the time of one that it put back is too early.
        broken = ~(after[:, 0] > state[:, 0] + (steps - 0.5) * self._model.opt.timestep)
        warnings = len(said) - before
        if warnings > np.count_nonzero(broken):  # some are not told by their time, or are another call's
            broken = broken | self._warned(models, state, held, steps)
        after[broken], sensors[broken] = np.nan, np.nan
        return after, sensors[:, 0], said[before] if warnings and broken.any() else None

    def rollout(self, models: Models, state: np.ndarray, held: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """States [N, steps, s] after each step, sensors [N, steps, y] before it, `held` being the same in all."""
        return self._rollout(self.threads, self.data, models, state, np.repeat(held[:, None, :], steps, axis=1))

    def _warned(self, models: Models, state: np.ndarray, held: np.ndarray, steps: int) -> np.ndarray:
        """Which worlds [N] MuJoCo warns of: each is moved alone, because a thread's counters are of its last world."""
        warned, held = np.zeros(len(state), bool), np.repeat(held[:, None, :], steps, axis=1)
        for i in range(len(state)):
            own = slice(i, i + 1)
            self._rollout(self._alone, self.data[:1], models[own], state[own], held[own])
            warned[i] = self.data[0].warning.number.any()
        return warned

    def _rollout(
        self, threads: Rollout, data: list[mujoco.MjData], models: Models, state: np.ndarray, given: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rollout` with what is given [N, steps, ...] in each step."""
        steps = given.shape[1]
        states = np.empty((len(state), steps, state.shape[1]))
        sensors = np.empty((len(state), steps, self._model.nsensordata))
        threads.rollout(
            models,
            data,
            state,
            given,
            control_spec=self.given,
            skip_checks=True,
            nstep=steps,
            state=states,
            sensordata=sensors,
        )
        return states, sensors


class Pools:
    """Pools that share a number of threads: as many as there are calls at once, all of them for a single one."""

    def __init__(self, model: mujoco.MjModel, threads: int):
        self._model, self._threads = model, threads
        self._idle: dict[int, SimpleQueue[Pool]] = {}

    def prepare(self, calls: int) -> None:
        """Make the pools for so many calls at once, if they are not made yet."""
        if calls not in self._idle:
            idle: SimpleQueue[Pool] = SimpleQueue()
            for _ in range(calls):
                idle.put(Pool(self._model, max(self._threads // calls, 1)))
            self._idle[calls] = idle

    @contextmanager
    def one(self, calls: int) -> Iterator[Pool]:
        """A pool for one of the calls that come at once; it waits where more come."""
        idle = self._idle[calls]
        pool = idle.get()
        try:
            yield pool
        finally:
            idle.put(pool)
