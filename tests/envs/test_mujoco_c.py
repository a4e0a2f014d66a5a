"""The compiled physics against a bare MuJoCo loop, bit for bit."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs.families.circle import POINT, SUBSTEPS
from metacpo.envs.physics import MujocoC

STEPS = 500
WORLDS = 17
STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
NO_CONTACT = 'contype="0" conaffinity="0" '


def point_model(mjcf: str | None = None) -> mujoco.MjModel:
    """The Point without warm starts: the one flag that the library's results depend on."""
    model = mujoco.MjModel.from_xml_string(mjcf or POINT.read_text())
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    return model


def bare_loop(model, qpos, controls):
    """States [T, s] and sensors [T, y] after each control [T, 2] (float32) of one world from rest at qpos."""
    data, seen = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos = qpos.astype(np.float64)
    states = np.empty((len(controls), mujoco.mj_stateSize(model, STATE)))
    sensors = np.empty((len(controls), model.nsensordata))
    for t, control in enumerate(controls):
        data.ctrl = control.astype(np.float64)
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        mujoco.mj_getState(model, data, states[t], STATE)
        mujoco.mj_setState(model, seen, states[t], STATE)
        seen.ctrl = data.ctrl
        mujoco.mj_forward(model, seen)
        sensors[t] = seen.sensordata
    return states, sensors


@pytest.fixture(scope="module")
def plan():
    """Starts [B, 3] and controls [T, B, 2], some beyond the actuators' range."""
    rng = np.random.default_rng(0)
    qpos = rng.uniform(-1, 1, (WORLDS, 3)).astype(np.float32)
    return qpos, rng.normal(0, 1, (STEPS, WORLDS, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(plan):
    """States [T, B, s] and sensors [T, B, y] of the bare loop."""
    model = point_model()
    worlds = [bare_loop(model, qpos, plan[1][:, i]) for i, qpos in enumerate(plan[0])]
    return tuple(np.stack(parts, axis=1) for parts in zip(*worlds, strict=True))


def as_float64(bits) -> np.ndarray:
    return np.ascontiguousarray(bits).view(np.float64)


def compiled_rollout(physics: MujocoC, qpos, controls, vmap):
    """States [T, *batch, s] and sensors of a jitted scan; `vmap` maps a function of one world over the batch."""

    @jax.jit
    def run(qpos, controls):
        start = vmap(lambda q: physics.reset(q, jnp.zeros(3)))(qpos)

        def step(state, control):
            state = vmap(physics.step)(state, control)
            return state, state

        return jax.lax.scan(step, start, controls)[1]

    after = run(qpos, controls)
    return as_float64(after.bits), np.asarray(after.sensors)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("worlds", [1, 3, WORLDS])
def test_rollout_equals_bare_mujoco(plan, expected, worlds, threads):
    qpos, controls = plan
    physics = MujocoC(POINT, SUBSTEPS, threads)
    states, sensors = compiled_rollout(physics, qpos[:worlds], controls[:, :worlds], jax.vmap)
    np.testing.assert_array_equal(states, expected[0][:, :worlds])
    np.testing.assert_array_equal(sensors, expected[1][:, :worlds].astype(np.float32))


def test_one_world_without_vmap_equals_bare_mujoco(plan, expected):
    qpos, controls = plan
    states, _ = compiled_rollout(MujocoC(POINT, SUBSTEPS, 1), qpos[4], controls[:, 4], lambda f: f)
    np.testing.assert_array_equal(states, expected[0][:, 4])


def test_nested_vmap_is_one_flat_batch(plan, expected):
    """Tasks times episodes: [5, 3] worlds in one call."""
    qpos, controls = plan[0][:15].reshape(5, 3, 3), plan[1][:, :15].reshape(STEPS, 5, 3, 2)
    physics = MujocoC(POINT, SUBSTEPS, 2)
    calls = []
    host_step = physics._host_step
    physics._host_step = lambda n, bits, control: calls.append(np.shape(bits)[:-1]) or host_step(n, bits, control)
    states, sensors = compiled_rollout(physics, qpos, controls, lambda f: jax.vmap(jax.vmap(f)))
    np.testing.assert_array_equal(states.reshape(STEPS, 15, -1), expected[0][:, :15])
    np.testing.assert_array_equal(sensors.reshape(STEPS, 15, -1), expected[1][:, :15].astype(np.float32))
    assert calls == [(5, 3)] * STEPS


def test_reset_puts_the_world_there_at_rest(plan):
    physics = MujocoC(POINT, SUBSTEPS, 2)
    qvel = np.array([0.1, -0.2, 0.3], np.float32)
    state = jax.jit(jax.vmap(physics.reset, (0, None)))(plan[0], qvel)
    model = physics.model
    for qpos, bits, sensors in zip(plan[0], state.bits, state.sensors, strict=True):
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, np.array(as_float64(bits)), STATE)
        assert data.time == 0
        np.testing.assert_array_equal(data.qpos, qpos.astype(np.float64))
        np.testing.assert_array_equal(data.qvel, qvel.astype(np.float64))
        mujoco.mj_forward(model, data)
        np.testing.assert_array_equal(sensors, data.sensordata.astype(np.float32))


def test_the_floor_never_changes_the_motion(plan):
    """The library's floor has no contacts. With them the robot touches it, and moves the same to the last bit."""
    text = POINT.read_text()
    assert text.count(NO_CONTACT) == 1
    without, touching = point_model(text), point_model(text.replace(NO_CONTACT, ""))
    data = mujoco.MjData(touching)
    mujoco.mj_forward(touching, data)
    assert data.ncon > 0
    for qpos, controls in zip(plan[0][:2], plan[1].swapaxes(0, 1)[:2], strict=True):
        free, _ = bare_loop(without, qpos, controls)
        contact, _ = bare_loop(touching, qpos, controls)
        np.testing.assert_array_equal(free, contact)


def test_one_environment_step_is_twenty_milliseconds(plan, expected):
    physics = MujocoC(POINT, SUBSTEPS, 1)
    assert physics.seconds_per_step == pytest.approx(0.02)
    assert physics.control_size == 2
    assert expected[0][-1, 0, 0] == pytest.approx(0.02 * STEPS)  # the state begins with the time


POST = '<geom name="post" type="sphere" size="0.1" pos="0.3 0 0.1" contype="0" conaffinity="0"/>'
SLIDE = '<joint name="x" type="slide"'
CONSTRAINED = {
    "limit": {SLIDE: f'{SLIDE} range="-0.1 0.1"'},
    "friction": {SLIDE: f'{SLIDE} frictionloss="0.001"'},
    "equality": {"<sensor>": '<equality><joint joint1="x" joint2="y"/></equality><sensor>'},
    "contact": {"<worldbody>": '<worldbody><geom type="box" size="0.1 0.1 0.1" pos="0.3 0 0.1"/>'},
    "pair": {
        "<worldbody>": f"<worldbody>{POST}",
        "<sensor>": '<contact><pair geom1="agent" geom2="post"/></contact><sensor>',
    },
}


@pytest.mark.parametrize("edits", CONSTRAINED.values(), ids=CONSTRAINED.keys())
def test_constraints_of_a_model_are_kept(tmp_path, edits):
    """The stages that the Point does without are there for a model that needs them."""
    text = POINT.read_text()
    for old, new in edits.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    mjcf = tmp_path / "constrained.xml"
    mjcf.write_text(text)
    qpos = np.zeros((1, 3), np.float32)
    ahead = np.tile(np.array([1, 0], np.float32), (100, 1, 1))
    states, _ = compiled_rollout(MujocoC(mjcf, SUBSTEPS, 1), qpos, ahead, jax.vmap)
    np.testing.assert_array_equal(states[:, 0], bare_loop(point_model(text), qpos[0], ahead[:, 0])[0])
    free, _ = bare_loop(point_model(), qpos[0], ahead[:, 0])
    assert np.abs(states[-1, 0] - free[-1]).max() > 1e-3
