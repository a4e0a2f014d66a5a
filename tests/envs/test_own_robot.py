"""A robot of one's own: what the functions are given is what MuJoCo computed, on either engine."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs import ContractError, OwnRobot, PhysicsError, make
from metacpo.envs.physics import engine
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

from .test_registry import CRANE

STEPS = 40


@pytest.fixture(scope="module")
def crane() -> OwnRobot:
    return make(f"{CRANE}:env")  # pyright: ignore[reportReturnType]


def driven(env, key=0):
    """The start, the states [T] after it, and the actions [T, 1]; the robot is pushed hard one way, then the other."""
    task = env.tasks.make({"goal": -1.0, "speed": 0.5, "swing": 0.15})
    actions = jnp.where(jnp.arange(STEPS) % 20 < 10, 1.0, -1.0)[:, None]

    def run(key):
        start = env.reset(task, key)
        return start, jax.lax.scan(lambda s, a: (env.step(task, s, a),) * 2, start, actions)[1]

    return *jax.jit(run)(jax.random.key(key)), np.asarray(actions)


def test_rewards_and_costs_are_those_of_a_bare_mujoco_loop(crane):
    start, states, actions = driven(crane)
    model = mujoco.MjModel.from_xml_path(str(crane.mjcf))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data = mujoco.MjData(model)
    data.qpos = np.asarray(start.world.qpos, np.float64)
    place, expected = float(data.qpos[0]), []
    for action in actions:
        data.ctrl = action
        for _ in range(crane.substeps):
            mujoco.mj_step(model, data)
        nearer = abs(-1.0 - place) - abs(-1.0 - data.qpos[0])
        place = float(data.qpos[0])
        bonus = 0.03 if abs(-1.0 - place) < 0.1 else 0.0
        expected.append([nearer + bonus, abs(data.qvel[0]) > 0.5, abs(data.qpos[1]) > 0.15, *data.qpos, *data.qvel])
    expected = np.array(expected)
    np.testing.assert_allclose(states.reward, expected[:, 0], atol=1e-6)
    np.testing.assert_array_equal(states.cost, expected[:, 1:3])
    assert expected[:, 1:3].sum(axis=0).min() >= 3  # both costs occur
    np.testing.assert_allclose(states.world.qpos, expected[:, 3:5], atol=1e-6)
    np.testing.assert_allclose(states.world.qvel, expected[:, 5:7], atol=1e-6)
    # observe: place, speed, angle, rate, what is left to the goal, share of the episode
    np.testing.assert_allclose(states.obs[:, :4], expected[:, [3, 5, 4, 6]], atol=1e-6)
    np.testing.assert_allclose(states.obs[:, 5], np.arange(1, STEPS + 1) / crane.episode_length, atol=1e-6)


def test_the_contract_s_facts(crane):
    assert (crane.observation_size, crane.action_size, crane.cost_names) == (6, 1, ("speed", "swing"))
    start, states, _ = driven(crane)
    assert float(start.reward) == 0 and not np.any(start.cost) and not np.any(states.truncated)
    np.testing.assert_allclose(crane.position(states)[:, 0], states.world.qpos[:, 0], atol=1e-6)
    again = driven(crane)[1]
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(again), strict=True))


def test_a_fall_terminates_and_is_not_a_truncation(crane):
    falls = dataclasses.replace(crane, ended=lambda now: jnp.abs(now.sensors["angle"][0]) > 0.3)
    _, states, _ = driven(falls)
    angle = np.abs(np.asarray(states.world.qpos[:, 1]))
    assert np.any(angle > 0.3)
    np.testing.assert_array_equal(states.terminated, angle > 0.3)


@pytest.mark.slow
def test_it_runs_on_mjx_as_well(crane):
    pytest.importorskip("mujoco.mjx")
    c, x = driven(crane)[1], driven(crane.with_physics(engine("mjx")))[1]
    np.testing.assert_allclose(x.world.qpos, c.world.qpos, atol=1e-4)
    np.testing.assert_allclose(x.reward, c.reward, atol=1e-4)
    np.testing.assert_array_equal(x.cost, c.cost)


def test_whole_episodes_of_many_worlds(crane):
    policy = GaussianPolicy(6, 1, (8,), 0.5)
    roll = jax.jit(
        lambda key: rollout(crane, policy, policy.init(key), Normaliser.init(6), crane.tasks.make({}), key, 7)
    )
    seen = roll(jax.random.key(0))
    assert seen.obs.shape == (100, 7, 6) and seen.cost.shape == (100, 7, 2)
    assert float(seen.valid.min()) == 1 and float(seen.nonfinite) == 0 and not np.any(seen.terminated)


def test_a_cost_of_the_wrong_shape_is_named(crane):
    wrong = dataclasses.replace(crane, costs={"swing": lambda step: step.after.qvel})
    with pytest.raises(ContractError, match=r"cost 'swing': has shape \(2,\), wanted one number"):
        driven(wrong)


def test_a_file_that_does_not_compile_is_named(crane, tmp_path):
    mjcf = tmp_path / "torn.xml"
    mjcf.write_text("<mujoco><worldbody><body><geom/></body></worldbody></mujoco>")
    with pytest.raises(PhysicsError, match=r"mjcf: .*torn.xml does not compile"):
        dataclasses.replace(crane, mjcf=mjcf).action_size  # noqa: B018
