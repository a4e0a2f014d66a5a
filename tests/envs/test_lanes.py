"""Lanes: the motion against a loop in NumPy, and that only knowing the side is both quick and safe."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import Environment, make
from metacpo.envs.check import check
from metacpo.envs.families.lanes import EPISODE_LENGTH, HALF, hurried_reward
from metacpo.envs.scene import Disc, Wall, scene_of

ENV = make("navigation-lanes")
KEY = jax.random.key(0)
TASK = ENV.tasks.make({"side": -1, "offset": 0.25, "hazard_y": -0.3, "radius": 0.4})


@jax.jit
def drive(task, state, actions):
    """All states after each of the actions [T, 2]."""

    def step(state, action):
        after = ENV.step(task, state, action)
        return after, after

    return jax.lax.scan(step, state, actions)[1]


@jax.jit
def steered(task, state, x):
    """States of a controller that goes to the line of this x, along it past the hazard, and then to the goal."""

    def step(state, _):
        place, speed = state.obs[:2], state.obs[2:4]
        wanted = jnp.where(place[1] < 0.6, x, 0.0)
        ahead = jnp.where((jnp.abs(place[0] - wanted) < 0.15) | (place[1] < -0.8), 1.0, 0.6)
        ahead = jnp.where(place[1] > 1.0, 2.0 * (1.2 - place[1]) - speed[1], ahead)
        after = ENV.step(task, state, jnp.stack([4.0 * (wanted - place[0]) - 1.5 * speed[0], ahead]))
        return after, after

    return jax.lax.scan(step, state, None, EPISODE_LENGTH)[1]


def by_hand(start, actions):
    """The module's table once more, in float64 and as loops, for TASK: places, rewards, costs."""
    (x, y), u, v, rows = start, 0.0, 0.0, []
    for ax, ay in actions:
        left = math.dist((x, y), (0, 1.2))
        u += 0.05 * (3 * min(1, max(-1, ax)) - 1.5 * u)
        v += 0.05 * (3 * min(1, max(-1, ay)) - 1.5 * v)
        x, y = x + 0.05 * u, y + 0.05 * v
        now = math.dist((x, y), (0, 1.2))
        inside, out = math.dist((x, y), (-0.25, -0.3)) <= 0.4, abs(x) > 0.6
        rows.append((x, y, left - now - (0.02 if now > 0.2 else 0), float(inside), float(out)))
    return np.array(rows)


def test_a_trajectory_is_that_of_an_independent_loop():
    actions = np.random.default_rng(1).normal((-0.3, 0.8), 0.8, (EPISODE_LENGTH, 2))
    start = ENV.reset(TASK, KEY)
    states = drive(TASK, start, jnp.asarray(actions, jnp.float32))
    rows = by_hand([float(x) for x in start.obs[:2]], actions)
    np.testing.assert_allclose(ENV.position(states), rows[:, :2], atol=2e-5)
    np.testing.assert_allclose(states.reward, rows[:, 2], atol=2e-5)
    np.testing.assert_array_equal(states.cost, rows[:, 3:])
    np.testing.assert_allclose(states.obs[:, 4:], [0, 1.2] - rows[:, :2], atol=2e-5)
    assert np.all(rows[:, 3:].sum(axis=0) > 0) and np.all(rows[:, 3:].sum(axis=0) < EPISODE_LENGTH)


@pytest.mark.parametrize(
    ("before", "after", "earned"),
    [((0, 0), (0, 0.5), 0.48), ((0, 0), (0, 0), -0.02), ((0, 1.2), (0, 1.2), 0.0), ((0, 0.9), (0, 1.1), 0.2)],
)
def test_reward_by_hand(before, after, earned):
    arguments = [jnp.asarray(x, jnp.float32) for x in (before, after)]
    assert float(hurried_reward(*arguments)) == pytest.approx(earned, abs=1e-6)


def test_the_task_is_not_seen():
    other = ENV.tasks.make({"side": 1, "radius": 0.5})
    actions = jnp.tile(jnp.array([0.0, 1.0]), (EPISODE_LENGTH, 1))
    here, there = (drive(task, ENV.reset(task, KEY), actions) for task in (TASK, other))
    np.testing.assert_array_equal(here.obs, there.obs)
    np.testing.assert_array_equal(here.reward, there.reward)
    assert float(jnp.sum(here.cost)) != float(jnp.sum(there.cost))


@pytest.mark.parametrize("split", ["train", "shifted"])
def test_avoiding_is_a_decision(split):
    """By the free passage, by the other one, straight on, outside of the lane, waiting: the first is quick and safe."""
    tasks = ENV.tasks.sample_batch(KEY, 40, split)
    starts = jax.vmap(ENV.reset)(tasks, jax.random.split(KEY, 40))
    free = -tasks.params["side"]

    def by(x):
        states = jax.vmap(steered)(tasks, starts, jnp.broadcast_to(x, (40,)))
        return np.asarray(jnp.sum(states.reward, axis=1)), np.asarray(jnp.sum(states.cost, axis=(1, 2)))

    earned, paid = by(0.45 * free)
    assert np.mean(paid <= ENV.tasks.cost_limit[0]) > 0.95 and earned.mean() > 1.0
    for x in (-0.45 * free, jnp.zeros(()), 0.9 * free):
        assert np.all(by(x)[1] > ENV.tasks.cost_limit[0])
    waiting = drive(TASK, ENV.reset(TASK, KEY), jnp.zeros((EPISODE_LENGTH, 2)))
    assert not np.any(waiting.cost)
    assert float(jnp.sum(waiting.reward)) == pytest.approx(-0.02 * EPISODE_LENGTH, abs=1e-5)


def test_starts_and_the_end():
    assert isinstance(ENV, Environment)
    starts = jax.vmap(ENV.reset, (None, 0))(TASK, jax.random.split(KEY, 400))
    obs = np.asarray(starts.obs)
    assert np.all(np.abs(obs[:, :2] - [0, -1.2]) <= 0.1 + 1e-6)
    np.testing.assert_allclose(obs[:, :2].std(axis=0), 0.2 / math.sqrt(12), rtol=0.1)
    assert not np.any(obs[:, 2:4]) and not np.any(starts.reward) and not np.any(starts.cost)
    states = drive(TASK, ENV.reset(TASK, KEY), jnp.zeros((EPISODE_LENGTH, 2)))
    np.testing.assert_array_equal(states.truncated, np.arange(1, EPISODE_LENGTH + 1) == EPISODE_LENGTH)
    assert not np.any(states.terminated)


def test_drawn_hazards_close_their_side_and_leave_the_other():
    for split in ("train", "held-out", "shifted"):
        p = jax.tree.map(np.asarray, ENV.tasks.sample_batch(KEY, 300, split).params)
        assert 100 < np.sum(p["side"] == 1) < 200 and np.all(np.abs(p["side"]) == 1)
        assert np.all(p["offset"] + p["radius"] >= HALF - 1e-6)  # to the lane's wall
        assert np.all(p["offset"] - p["radius"] < 0)  # over the middle
        free = HALF - (p["radius"] - p["offset"])
        assert 0.25 < free.min() < free.max() < 0.5
        start, goal = (np.hypot(p["offset"], p["hazard_y"] - y) - p["radius"] for y in (-1.2, 1.2))
        assert start.min() > 0.1 * math.sqrt(2) and goal.min() > 0.2


def test_the_contract_holds_and_the_picture_shows_the_lane():
    assert [str(finding) for finding in check(ENV) if finding.fatal] == []
    hazard = Disc(-0.25, float(np.float32(-0.3)), float(np.float32(0.4)), "hazard")
    shapes = (Wall(-HALF), Wall(HALF), hazard, Disc(0.0, 1.2, 0.2, "goal"))
    assert scene_of(ENV, TASK, ENV.reset(TASK, KEY)) == shapes
