"""What an own robot's model may be: its control ranges are the actions' ends, and what it must not be is named."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.cli import main as cli
from metacpo.envs import ContractError, OwnRobot, PhysicsError
from metacpo.envs.base import action_bound
from metacpo.envs.check import check
from metacpo.envs.physics import MujocoC, engine
from metacpo.envs.tasks import Parameter, TaskDistribution
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

from .worlds import STATE, as_float64

MOTOR = '<motor name="drive" joint="j" {}/>'
ONE = MOTOR.format('ctrlrange="-1 1"')
MODEL = """<mujoco><compiler autolimits="true"/><option timestep="{timestep}"/><worldbody>{more}<body>
<joint name="j" type="hinge" axis="0 1 0" damping="1"/><geom size=".1" pos=".3 0 0"/></body></worldbody>
<actuator>{actuators}</actuator><sensor><jointpos name="angle" joint="j" {sensor}/></sensor></mujoco>"""
TASKS = TaskDistribution(
    {"goal": Parameter(0.5, 0.0, 1.0, "rad")},
    {split: lambda key: {"goal": jax.random.uniform(key, ())} for split in ("train", "shifted")},
    (1.0,),
)


def robot(folder: Path, actuators=ONE, more="", sensor="", timestep=0.01, **changes):
    mjcf = folder / "arm.xml"
    mjcf.write_text(MODEL.format(actuators=actuators, more=more, sensor=sensor, timestep=timestep))
    env = OwnRobot(
        mjcf=mjcf,
        tasks=TASKS,
        observe=lambda now: jnp.concatenate([now.qpos, now.qvel]),
        rewards={"near": lambda step: -jnp.abs(step.after.qpos[0] - step.params["goal"])},
        costs={"fast": lambda step: (jnp.abs(step.after.qvel[0]) > 1.0).astype(jnp.float32)},
        episode_length=10,
        place=lambda now: jnp.concatenate([now.qpos, now.qvel]),
    )
    return dataclasses.replace(env, **changes)


def after(env, actions, key=0):
    """States [T] after the actions [T, A]."""

    def run(key, actions):
        task = env.tasks.make({})
        return jax.lax.scan(lambda s, a: (env.step(task, s, a),) * 2, env.reset(task, key), actions)[1]

    return jax.jit(run)(jax.random.key(key), jnp.asarray(actions, jnp.float32))


@pytest.mark.parametrize("name", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
def test_actions_are_mapped_to_the_control_ranges_and_unbounded_ones_are_left(tmp_path, name):
    """Against a bare loop under the controls that are meant: [-1, 1] to [2, 6], [-1, 1] as it is, and no range."""
    if name == "mjx":
        pytest.importorskip("mujoco.mjx")
    ranges = ('ctrlrange="2 6" gear="0.1"', 'ctrlrange="-1 1"', "")
    motors = "".join(MOTOR.format(r).replace("drive", f"m{i}") for i, r in enumerate(ranges))
    assert action_bound(robot(tmp_path)) == 1.0
    env = robot(tmp_path, motors).with_physics(engine(name))
    assert action_bound(env) == np.inf
    actions = np.array([[-1, 0, 3], [0, 2, -4], [0.5, -0.5, 0], [1, 0, 1], [7, 1, 0], [-7, 0, 0]], np.float32)
    meant = actions.copy()
    meant[:, 0] = [2, 4, 5, 6, 6, 2]
    seen = after(env, actions)
    model = mujoco.MjModel.from_xml_path(str(env.mjcf))
    data = mujoco.MjData(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    start = jax.jit(env.reset)(env.tasks.make({}), jax.random.key(0))
    data.qpos = np.asarray(start.world.qpos, np.float64)
    for t, control in enumerate(meant):
        data.ctrl = control
        mujoco.mj_step(model, data, env.substeps)
        np.testing.assert_allclose(seen.world.qpos[t], data.qpos, atol=1e-6)
    ((note, text),) = env.notes  # which check-env passes on
    assert note == "no-ctrlrange" and "actuators [2] of arm.xml have no ctrlrange" in text


def test_a_model_without_actuators_is_refused_by_name(tmp_path, capsys):
    env = robot(tmp_path, "")
    assert [finding.name for finding in check(env)] == ["no-actuators"]
    with pytest.raises(ContractError, match=r"^no-actuators: arm.xml has no actuators, .*; add an <actuator> section"):
        env.observation_size  # noqa: B018


def test_a_mocap_body_is_refused_by_name_and_with_a_remedy(tmp_path):
    env = robot(tmp_path, more='<body name="target" mocap="true"><geom size=".1"/></body>')
    (fault,) = check(env)
    assert fault.name == "mocap" and fault.fatal
    assert fault.text.startswith("arm.xml has 1 mocap bodies") and 'take mocap="true" off' in fault.text
    with pytest.raises(ContractError, match=r"^mocap: arm.xml has 1 mocap bodies"):
        after(env, np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (lambda key, params, qpos0, nv: (jnp.zeros(3), jnp.zeros(nv)), "start: qpos has shape (3,), wanted (1,)"),
        (lambda key, params, qpos0, nv: (qpos0, jnp.zeros((1, nv))), "start: qvel has shape (1, 1), wanted (1,)"),
        (lambda key, params, qpos0, nv: (qpos0, jnp.zeros(nv, int)), "start: qvel has type int32, wanted floats"),
        (lambda key, params, qpos0, nv: qpos0, "start: returns "),
    ],
)
def test_a_start_of_another_shape_is_one_line(tmp_path, start, says):
    env = robot(tmp_path, start=start)
    (fault,) = check(env)
    assert fault.text.startswith(says) and "\n" not in fault.text
    with pytest.raises(ContractError) as error:
        env.observation_size  # noqa: B018
    assert str(error.value).startswith(says)


ARM = """
import sys
sys.path.insert(0, {tests!r})

from pathlib import Path
import jax.numpy as jnp
from tests.envs.test_own_model import robot
env = robot(Path({folder!r}), {given})
"""
CASES = {
    "no-actuators: arm.xml has no actuators": 'actuators=""',
    "start: qpos has shape (3,), wanted (1,)": "start=lambda key, params, qpos0, nv: (jnp.zeros(3), jnp.zeros(nv))",
}


@pytest.mark.parametrize("says", CASES)
def test_check_env_and_train_refuse_it_in_one_line(tmp_path, capsys, says):
    (tmp_path / "arm.py").write_text(
        ARM.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path), given=CASES[says])
    )
    (tmp_path / "arm.toml").write_text('env = "arm.py:env"\ntotal_steps = 100\n')
    for command in (["check-env", f"{tmp_path}/arm.py:env"], ["train", f"{tmp_path}/arm.toml"]):
        assert cli.main(command) in (1, 2)
        said = capsys.readouterr()
        (line,) = [line for line in (said.out + said.err).splitlines() if "not ready" not in line]
        assert says in line


def test_a_world_that_mujoco_gives_up_is_named_by_check_env_and_counted_by_a_rollout(tmp_path):
    """Pushed so hard that the angle is lost within a step. Its own functions would have seen zeros, or nothing."""
    hides = {"observe": lambda now: jnp.ones(2), "costs": {"fast": lambda step: step.after.qvel[0] > 1.0}}
    env = robot(tmp_path, MOTOR.format('ctrlrange="-1 1" gear="1e14"'), timestep=0.2, **hides)
    (fault,) = check(env)
    assert fault.name == "physics" and fault.fatal
    assert "a world at step 1 of a reference task of arm.xml (Nan, Inf or huge value in Q" in fault.text
    policy = GaussianPolicy(2, 1, (2,), 0.5)
    roll = jax.jit(lambda key: rollout(env, policy, policy.init(key), Normaliser.init(2), TASKS.make({}), key, 3))
    seen = roll(jax.random.key(0))
    assert float(seen.nonfinite) == 3 and float(seen.valid.sum()) == 0


@pytest.mark.parametrize("substeps", [1, 2, 3, 5, 10])
def test_sensors_with_a_history_are_those_of_bare_mujoco(tmp_path, substeps):
    env = robot(tmp_path, sensor='interval="0.05" nsample="5" delay="0.1"')
    physics = MujocoC(env.mjcf, substeps, 2)
    controls = np.random.default_rng(0).uniform(-1, 1, (12, 1)).astype(np.float32)

    @jax.jit
    def run(controls):
        start = physics.reset(jnp.full(1, 0.3, jnp.float32), jnp.zeros(1))
        return jax.lax.scan(lambda s, u: (physics.step(s, u),) * 2, start, controls)[1]

    seen = run(controls)
    model = mujoco.MjModel.from_xml_path(str(env.mjcf))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data, now = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos = np.float64(np.float32(0.3))
    state = np.empty(physics.state_size)
    for t, control in enumerate(controls):
        data.ctrl = control
        mujoco.mj_step(model, data, substeps)
        mujoco.mj_getState(model, data, state, STATE)
        np.testing.assert_array_equal(as_float64(seen.bits[t]), state)
        mujoco.mj_setState(model, now, state, STATE)
        now.ctrl = control
        mujoco.mj_forward(model, now)
        np.testing.assert_array_equal(seen.sensors[t], now.sensordata.astype(np.float32))
    assert np.ptp(seen.sensors) > 0


def test_mjx_refuses_sensors_with_a_history(tmp_path):
    pytest.importorskip("mujoco.mjx")
    mjcf = robot(tmp_path, sensor='interval="0.05" nsample="5"').mjcf
    with pytest.raises(PhysicsError, match=r"physics: mjx knows no history .* of arm.xml; take physics 'mujoco'"):
        engine("mjx")(mjcf, 1)
