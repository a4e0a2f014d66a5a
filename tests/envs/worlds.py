"""What the tests of the Car's and the buttons' worlds share: bare MuJoCo beside the compiled physics."""

import mujoco
import numpy as np

from metacpo.envs.physics import MujocoC
from metacpo.envs.robots import SUBSTEPS

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value


def as_float64(bits) -> np.ndarray:
    return np.ascontiguousarray(bits).view(np.float64)


def bare_loop(physics: MujocoC, start, controls, places=None):
    """States [T, s] and sensors [T, y] after each control [T, 2] of one world from the state `start`, step by step."""
    model = physics.model
    data, seen = mujoco.MjData(model), mujoco.MjData(model)
    mujoco.mj_setState(model, data, start, STATE)
    states = np.empty((len(controls), len(start)))
    sensors = np.empty((len(controls), model.nsensordata))
    for t, control in enumerate(controls):
        for d in (data, seen):
            d.ctrl = control.astype(np.float64)
            if places is not None:
                d.mocap_pos = places.astype(np.float64)
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        mujoco.mj_getState(model, data, states[t], STATE)
        mujoco.mj_setState(model, seen, states[t], STATE)
        mujoco.mj_forward(model, seen)
        sensors[t] = seen.sensordata
    return states, sensors
