"""Navigation: the motion against a loop in NumPy, reward and cost by hand, what is seen and what is not."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacpo.envs import Environment, make
from metacpo.envs.families.navigation import hazard_cost, progress_reward

ENV = make("navigation")
KEY = jax.random.key(0)
TASK = ENV.tasks.make({"goal_x": 1.0, "goal_y": 0.5, "hazard1_x": -0.9, "hazard1_y": 0.2, "hazard1_radius": 0.3})


@jax.jit
def drive(task, state, actions):
    """All states after each of the actions [T, 2]."""

    def step(state, action):
        after = ENV.step(task, state, action)
        return after, after

    return jax.lax.scan(step, state, actions)[1]


def by_hand(start, actions, task):
    """The module's table once more, in float64 and as loops: places, velocities, rewards, costs."""
    value = {name: float(x) for name, x in task.params.items()}
    (x, y), u, v, rows = start, 0.0, 0.0, []
    for ax, ay in actions:
        left = math.hypot(value["goal_x"] - x, value["goal_y"] - y)
        u += 0.05 * (3 * min(1, max(-1, ax)) - 1.5 * u)
        v += 0.05 * (3 * min(1, max(-1, ay)) - 1.5 * v)
        x, y = x + 0.05 * u, y + 0.05 * v
        now = math.hypot(value["goal_x"] - x, value["goal_y"] - y)
        inside = any(
            math.hypot(x - value[f"hazard{i}_x"], y - value[f"hazard{i}_y"]) <= value[f"hazard{i}_radius"]
            for i in (1, 2)
        )
        rows.append((x, y, u, v, left - now + (0.03 if now <= 0.2 else 0), float(inside)))
    return np.array(rows)


def test_a_trajectory_is_that_of_an_independent_loop():
    rng = np.random.default_rng(0)
    towards = np.array([0.55, 0.15])
    actions = np.concatenate([rng.normal(towards, 0.7, (70, 2)), rng.normal(-0.3 * towards, 1.5, (30, 2))])
    start = ENV.reset(TASK, KEY)
    states = drive(TASK, start, jnp.asarray(actions, jnp.float32))
    rows = by_hand([float(x) for x in start.obs[:2]], actions, TASK)
    np.testing.assert_allclose(ENV.position(states), rows[:, :2], atol=2e-5)
    np.testing.assert_allclose(states.obs[:, 2:4], rows[:, 2:4], atol=2e-5)
    np.testing.assert_allclose(states.reward, rows[:, 4], atol=2e-5)
    np.testing.assert_array_equal(states.cost[:, 0], rows[:, 5])
    assert np.abs(actions).max() > 1 and 0 < rows[:, 5].sum() < 100  # clamped somewhere, inside somewhere


def test_full_thrust_tends_to_two_metres_a_second():
    states = drive(TASK, ENV.reset(TASK, KEY), jnp.tile(jnp.array([5.0, -5.0]), (300, 1)))
    np.testing.assert_allclose(states.obs[-1, 2:4], [2, -2], atol=1e-3)
    assert float(jnp.max(jnp.abs(states.obs[:, 2:4]))) <= 2 + 1e-4


@pytest.mark.parametrize(
    ("before", "after", "earned"),
    [((0, 0), (0.3, 0.4), 0.5), ((0.3, 0.4), (0, 0), -0.5), ((3, 3.81), (3, 3.81), 0.03), ((3, 3.7), (3, 3.9), 0.23)],
)
def test_reward_by_hand(before, after, earned):
    arguments = [jnp.asarray(x, jnp.float32) for x in (before, after, (3, 4))]
    assert float(progress_reward(*arguments)) == pytest.approx(earned, abs=1e-5)


@pytest.mark.parametrize(
    ("place", "paid"),
    [((0, 0), 1), ((0.5, 0), 1), ((0.51, 0), 0), ((0.4, 0.4), 0), ((2, 1), 1), ((2, 0.74), 0), ((0.4, 0), 1)],
)
def test_cost_by_hand(place, paid):
    centres, radii = jnp.array([[0.0, 0.0], [2.0, 1.0]]), jnp.array([0.5, 0.25])
    assert float(hazard_cost(jnp.asarray(place, jnp.float32), centres, radii)) == paid
    assert float(hazard_cost(jnp.asarray(place, jnp.float32), centres.at[1].set(0.0), radii)) == (paid and place[0] < 1)


coordinate = st.floats(-3, 3, width=32)
pair = st.tuples(coordinate, coordinate)


@settings(deadline=None, max_examples=50)
@given(st.lists(pair, min_size=2, max_size=8), pair)
def test_progress_telescopes(places, goal):
    """Without bonuses an episode's reward is the distance at its start less that at its end, by whatever way."""
    path, end = np.array(places, np.float32), np.array(goal, np.float32)
    total = sum(float(progress_reward(a, b, jnp.asarray(end))) for a, b in pairwise(jnp.asarray(path)))
    near = np.linalg.norm(path[1:] - end, axis=1)
    if np.all(np.abs(near - 0.2) > 1e-5):
        expected = np.linalg.norm(path[0] - end) - near[-1] + 0.03 * np.sum(near <= 0.2)
        assert total == pytest.approx(expected, abs=1e-4)


def test_the_hazards_are_not_seen_and_do_not_push():
    other = ENV.tasks.make({"goal_x": 1.0, "goal_y": 0.5, "hazard2_x": 0.0, "hazard2_radius": 1.0})
    actions = jnp.tile(jnp.array([1.0, 0.1]), (60, 1))
    here, there = (drive(task, ENV.reset(task, KEY), actions) for task in (TASK, other))
    np.testing.assert_array_equal(here.obs, there.obs)
    np.testing.assert_array_equal(here.reward, there.reward)
    assert float(jnp.sum(here.cost)) != float(jnp.sum(there.cost))


def test_observation_start_and_end():
    assert isinstance(ENV, Environment)
    starts = jax.vmap(ENV.reset, (None, 0))(TASK, jax.random.split(KEY, 400))
    obs = np.asarray(starts.obs)
    assert np.all(np.abs(obs[:, :2] - [-1.2, 0]) <= 0.1 + 1e-6)
    assert len(np.unique(obs[:, 0])) > 390
    np.testing.assert_allclose(obs[:, :2].std(axis=0), 0.2 / math.sqrt(12), rtol=0.1)
    np.testing.assert_array_equal(obs[:, 2:4], 0)
    np.testing.assert_allclose(obs[:, 4:], [1.0, 0.5] - obs[:, :2], atol=1e-6)
    assert not np.any(starts.reward) and not np.any(starts.cost)
    states = drive(TASK, ENV.reset(TASK, KEY), jnp.zeros((102, 2)))
    np.testing.assert_array_equal(states.truncated, np.arange(1, 103) >= 100)
    assert not np.any(states.terminated)


def test_drawn_tasks_lie_in_the_allowed_ranges_and_vary_in_their_limit():
    for split in ("train", "held-out", "shifted"):
        tasks = ENV.tasks.sample_batch(KEY, 300, split)
        for name, field in ENV.tasks.parameters.items():
            values = np.asarray(tasks.params[name])
            assert field.low <= values.min() and values.max() <= field.high and np.ptp(values) > 0
        p = {name: np.asarray(x) for name, x in tasks.params.items()}
        for x, y, free in ((-1.2, 0.0, 0.1 * math.sqrt(2)), (p["goal_x"], p["goal_y"], 0.0)):
            for i in (1, 2):  # nobody starts in a hazard, and no goal lies in one
                gap = np.hypot(p[f"hazard{i}_x"] - x, p[f"hazard{i}_y"] - y) - p[f"hazard{i}_radius"]
                assert gap.min() > free, (split, i)
        base, share = ENV.tasks.cost_limit[0], np.asarray(tasks.cost_limit)[:, 0] / ENV.tasks.cost_limit[0]
        low, high = ENV.tasks.limit_factors
        assert low <= share.min() < low + 0.05 and high - 0.05 < share.max() <= high
        assert base > 0


def test_a_batch_is_its_members():
    tasks, keys = ENV.tasks.sample_batch(KEY, 4), jax.random.split(KEY, 4)
    actions = jax.random.normal(KEY, (4, 30, 2)) + 0.5
    batch = jax.vmap(lambda t, k, a: drive(t, ENV.reset(t, k), a))(tasks, keys, actions)
    for i in range(4):
        task = jax.tree.map(lambda x: x[i], tasks)  # noqa: B023
        alone = drive(task, ENV.reset(task, keys[i]), actions[i])
        np.testing.assert_allclose(batch.obs[i], alone.obs, atol=1e-5)
        np.testing.assert_allclose(batch.reward[i], alone.reward, atol=1e-5)
        np.testing.assert_array_equal(batch.cost[i], alone.cost)
