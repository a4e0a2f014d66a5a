"""The bandit: reward and cost by hand, one step an episode, and the closed-form optimum against brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacpo.envs import Environment, make
from metacpo.envs.families.bandit import cost, optimal_value, reward
from metacpo.envs.tasks import SPLITS, Task, with_cost_limit

ENV = make("bandit")
KEY = jax.random.key(0)
# Goal (3, 4)/5, edge x = 0.2 with its far side to the right.
TASK = ENV.tasks.make({"goal_x": 0.6, "goal_y": 0.8, "edge_angle": 0.0, "edge_place": 0.2})


@pytest.mark.parametrize(
    ("action", "earned", "paid"),
    [
        ((0.6, 0.8), 1.0, 0.4),
        ((0.0, 0.0), 0.0, 0.0),
        ((0.2, 0.8), 0.84, 0.0),
        ((1.2, 0.0), 0.0, 1.0),
        ((-1, 9), -68.8, 0),
    ],
)
def test_reward_and_cost_by_hand(action, earned, paid):
    after = ENV.step(TASK, ENV.reset(TASK, KEY), jnp.asarray(action, jnp.float32))
    assert float(after.reward) == pytest.approx(earned, abs=1e-5)
    np.testing.assert_allclose(after.cost, [paid], atol=1e-6)
    np.testing.assert_allclose(ENV.position(after), action)


def test_the_edge_is_where_its_angle_says():
    up = ENV.tasks.make({"edge_angle": math.pi / 2, "edge_place": -0.5})
    assert float(cost(jnp.array([7.0, 0.25]), up)) == pytest.approx(0.75)
    assert float(cost(jnp.array([7.0, -0.75]), up)) == 0


def test_an_episode_is_one_step_and_says_nothing_of_the_task():
    assert isinstance(ENV, Environment)
    start = ENV.reset(TASK, KEY)
    after = ENV.step(TASK, start, jnp.ones(2))
    assert not start.terminated and after.terminated
    assert not start.truncated and not after.truncated
    assert (int(start.steps), int(after.steps), ENV.episode_length) == (0, 1, 1)
    assert float(start.reward) == 0 and float(start.cost[0]) == 0
    other = ENV.reset(ENV.tasks.make({"goal_x": -2.0}), jax.random.key(9))
    for state in (start, after, other):
        np.testing.assert_array_equal(state.obs, np.zeros(1))


unit = st.floats(-1.5, 1.5, width=32)


@settings(deadline=None, max_examples=60)
@given(unit, unit, st.floats(-3.125, 3.125, width=32), unit, st.floats(0, 1, width=32))
def test_no_action_on_a_grid_beats_the_optimum(x, y, angle, place, limit):
    task = ENV.tasks.make({"goal_x": x, "goal_y": y, "edge_angle": angle, "edge_place": place})
    value, best = optimal_value(with_cost_limit(task, limit))
    assert float(reward(best, task)) == pytest.approx(float(value), abs=1e-4)
    assert float(cost(best, task)) <= limit + 1e-5
    # By an independent loop-free search: offsets along and across the edge cover the region round the goal.
    normal, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    along, aside = np.meshgrid(np.linspace(-6, 6, 601), np.linspace(-1, 1, 11))
    points = np.array([x, y]) + along[..., None] * normal + aside[..., None] * across
    paid = np.maximum(0, points @ normal - place)
    earned = np.where(paid <= limit, 1 - np.sum((points - [x, y]) ** 2, axis=-1), -np.inf)
    assert earned.max() <= float(value) + 1e-4
    # A grid of 0.02 m comes this near: the value falls by at most 2·e·0.02 + 0.02² over one cell.
    slope = 2 * math.sqrt(max(0.0, 1 - float(value)))
    assert earned.max() >= float(value) - 0.02 * slope - 0.02**2 - 1e-4


def test_the_optimum_where_the_constraint_is_slack_and_where_it_binds():
    free = with_cost_limit(TASK, 0.4)
    assert float(optimal_value(free)[0]) == pytest.approx(1.0)
    np.testing.assert_allclose(optimal_value(free)[1], [0.6, 0.8], atol=1e-6)
    value, action = optimal_value(with_cost_limit(TASK, 0.1))
    assert float(value) == pytest.approx(1 - 0.3**2)
    np.testing.assert_allclose(action, [0.3, 0.8], atol=1e-6)


def test_mixing_actions_does_not_beat_the_optimum():
    """A random policy on a coarse grid, by linear programming: Jensen's inequality, checked from outside."""
    linprog = pytest.importorskip("scipy.optimize").linprog
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(0, 1, 11)), axis=-1).reshape(-1, 2)
    task = with_cost_limit(TASK, 0.1)
    earned = np.asarray(jax.vmap(reward, (0, None))(jnp.asarray(grid, jnp.float32), task), np.float64)
    paid = np.asarray(jax.vmap(cost, (0, None))(jnp.asarray(grid, jnp.float32), task), np.float64)
    best = linprog(-earned, A_ub=paid[None], b_ub=[0.1], A_eq=np.ones((1, len(grid))), b_eq=[1])
    assert -best.fun == pytest.approx(float(optimal_value(task)[0]), abs=1e-5)


def test_drawn_tasks_lie_where_the_module_says():
    for split in SPLITS:
        tasks = ENV.tasks.sample_batch(KEY, 500, split)
        p = {name: np.asarray(value, np.float64) for name, value in tasks.params.items()}
        distance = np.hypot(p["goal_x"], p["goal_y"])
        behind = p["goal_x"] * np.cos(p["edge_angle"]) + p["goal_y"] * np.sin(p["edge_angle"]) - p["edge_place"]
        low, high, least = (1.0, 1.4, 0.2) if split == "shifted" else (0.0, 1.0, -0.2)
        assert low - 1e-4 <= distance.min() and distance.max() <= high + 1e-4
        assert least - 1e-4 <= behind.min() and behind.max() <= 0.6 + 1e-4
        for name, field in ENV.tasks.parameters.items():
            assert field.low - 1e-5 <= p[name].min() and p[name].max() <= field.high + 1e-5
        values, _ = jax.vmap(optimal_value)(tasks)
        assert float(values.min()) >= 0.75 - 1e-4  # e ≤ 0.6 − 0.1
    assert 0.1 < np.mean(np.asarray(jax.vmap(optimal_value)(ENV.tasks.sample_batch(KEY, 500))[0]) > 1 - 1e-6) < 0.9


def test_a_batch_is_its_members():
    tasks = ENV.tasks.sample_batch(KEY, 4)
    actions = jax.random.normal(KEY, (4, 2))
    batch = jax.vmap(lambda task, a: ENV.step(task, ENV.reset(task, KEY), a))(tasks, actions)
    for i in range(4):
        one: Task = jax.tree.map(lambda x: x[i], tasks)  # noqa: B023
        alone = ENV.step(one, ENV.reset(one, KEY), actions[i])
        np.testing.assert_allclose(batch.reward[i], alone.reward, rtol=1e-6)
        np.testing.assert_allclose(batch.cost[i], alone.cost, atol=1e-6)
