"""The example of a robot that breaks: as built it is Gymnasium's own, and a task changes what it says and no more."""

from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from metacpo.cli import main as cli

FOLDER = Path(__file__).parents[2] / "examples" / "cheetah"
ACTIONS = np.repeat(np.random.default_rng(1).uniform(-1.2, 1.2, (15, 6)).astype(np.float32), 4, axis=0)


@pytest.fixture(scope="module")
def cheetah(example):
    return example("cheetah/cheetah.py")


@pytest.fixture(scope="module")
def walked(cheetah):
    """(params, actions) ↦ the states of one world."""
    env = cheetah.env
    step = jax.jit(env.step)

    def walk(params, actions=ACTIONS):
        task = env.tasks.make(params)
        states = [env.reset(task, jax.random.key(0))]
        for action in actions:
            states.append(step(task, states[-1], jnp.asarray(action)))
        return states

    return walk


def test_as_built_it_is_gymnasiums_and_costs_to_be_faster_than_the_limit(cheetah, walked):
    states = walked({})
    stock = gymnasium.make("HalfCheetah-v5", disable_env_checker=True).unwrapped
    assert isinstance(stock, HalfCheetahEnv)
    stock.reset(seed=0)
    start = np.asarray(states[0].obs, np.float64)
    stock.set_state(np.concatenate([[0.0], start[:8]]), start[8:])
    for action, after in zip(ACTIONS, states[1:], strict=True):
        obs, reward, _, _, info = stock.step(np.clip(action, -1, 1))
        np.testing.assert_allclose(after.obs, obs, atol=2e-3)  # from a start that is rounded to float32
        assert after.reward == pytest.approx(0.05 * float(reward), abs=2e-4)
        assert float(after.cost[0]) == float(info["x_velocity"] > cheetah.SPEED_LIMIT)
    assert 0 < sum(float(state.cost[0]) for state in states) < len(ACTIONS)


def test_a_dead_motor_does_nothing_whatever_it_is_told(cheetah, walked):
    told, place = walked({"fshin": 0.0}), cheetah.MOTORS.index("fshin")
    quiet = ACTIONS.copy()
    quiet[:, place] = 0.0
    for one, other in zip(told, walked({"fshin": 0.0}, quiet), strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
    assert not np.allclose(told[-1].obs, walked({"bshin": 0.0})[-1].obs, atol=0.1)


def test_the_load_is_the_torsos_and_the_friction_every_geoms(cheetah):
    model = mujoco.MjModel.from_xml_path(str(cheetah.env.mjcf))
    before = model.body_mass.copy(), model.geom_friction.copy(), model.actuator_gear.copy()
    cheetah.vary(model, {motor: 1.0 for motor in cheetah.MOTORS} | {"load": 2.5, "friction": 0.5})
    np.testing.assert_allclose(model.body_mass - before[0], 2.5 * (np.arange(model.nbody) == 1), atol=1e-12)
    np.testing.assert_allclose(model.geom_friction[:, 0], 0.5 * before[1][:, 0])
    np.testing.assert_array_equal(model.geom_friction[:, 1:], before[1][:, 1:])
    np.testing.assert_array_equal(model.actuator_gear, before[2])


def test_one_motor_is_weak_in_every_task(cheetah):
    tasks = cheetah.env.tasks.sample_batch(jax.random.key(0), 200, "train")
    strengths = np.stack([np.asarray(tasks.params[motor]) for motor in cheetah.MOTORS])
    assert np.all(np.sum(strengths < 1, axis=0) == 1) and np.all(strengths.min(axis=0) <= 0.4)
    assert np.bincount(strengths.argmin(axis=0), minlength=6).min() >= 20


@pytest.mark.slow
def test_it_is_ready_to_train(capsys):
    assert cli.main(["check-env", f"{FOLDER}/cheetah.py:env"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("cheetah.py:env: ready to train")
