"""Thruster: the motion against a loop in NumPy, what is seen and what is not, and the best value by a controller."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import Environment, make
from metacpo.envs.check import check
from metacpo.envs.families.thruster import DT, EPISODE_LENGTH, HALF, MEAN_WAY, PLACES, optimal_value, outside
from metacpo.envs.scene import Disc, Wall, scene_of

ENV = make("thruster")
KEY = jax.random.key(0)
TASK = ENV.tasks.make({"angle": 2.0, "gain": 1.2})


@jax.jit
def drive(task, state, actions):
    """All states after each of the actions [T, 2]."""

    def step(state, action):
        after = ENV.step(task, state, action)
        return after, after

    return jax.lax.scan(step, state, actions)[1]


@jax.jit
def steered(task, state):
    """The states of a controller that knows the task: straight to the goal, as fast as the thruster goes."""

    def step(state, _):
        cos, sin = jnp.cos(task.params["angle"]), jnp.sin(task.params["angle"])
        x, y = state.obs[2:]
        side = 1 - 2 * task.params["mirrored"]
        wanted = jnp.stack([cos * x + sin * y, side * (cos * y - sin * x)]) / (DT * task.params["gain"])
        after = ENV.step(task, state, wanted / jnp.maximum(1.0, jnp.max(jnp.abs(wanted))))
        return after, after

    return jax.lax.scan(step, state, None, EPISODE_LENGTH)[1]


def by_hand(start, goal, actions, angle, gain, mirrored):
    """The module's table once more, in float64 and as loops: places, rewards, costs."""
    (x, y), rows = start, []
    for action in actions:
        a, b = (min(1.0, max(-1.0, float(u))) for u in action)
        b = -b if mirrored else b
        left = math.dist((x, y), goal)
        x += 0.1 * gain * (math.cos(angle) * a - math.sin(angle) * b)
        y += 0.1 * gain * (math.sin(angle) * a + math.cos(angle) * b)
        rows.append((x, y, (left - math.dist((x, y), goal)) / MEAN_WAY, float(max(abs(x), abs(y)) > 1.0)))
    return np.array(rows)


@pytest.mark.parametrize("mirrored", [0, 1])
def test_a_trajectory_is_that_of_an_independent_loop(mirrored):
    task = ENV.tasks.make({"angle": 2.0, "gain": 1.2, "mirrored": mirrored})
    actions = np.random.default_rng(0).normal((1.0, -0.4), 1.0, (EPISODE_LENGTH, 2))
    start = ENV.reset(task, KEY)
    states = drive(task, start, jnp.asarray(actions, jnp.float32))
    place, goal = np.asarray(start.obs[:2], float), np.asarray(start.obs[:2] + start.obs[2:], float)
    rows = by_hand(place, goal, actions, 2.0, 1.2, mirrored)
    np.testing.assert_allclose(ENV.position(states), rows[:, :2], atol=1e-5)
    np.testing.assert_allclose(states.obs, np.concatenate([rows[:, :2], goal - rows[:, :2]], axis=1), atol=1e-5)
    np.testing.assert_allclose(states.reward, rows[:, 2], atol=1e-5)
    np.testing.assert_array_equal(states.cost[:, 0], rows[:, 3])
    assert np.abs(actions).max() > 1 and 0 < rows[:, 3].sum() < EPISODE_LENGTH  # clamped somewhere, outside somewhere


def test_the_rewards_of_an_episode_add_up_to_the_way_that_it_went():
    start = ENV.reset(TASK, KEY)
    states = drive(TASK, start, jax.random.normal(KEY, (EPISODE_LENGTH, 2)))
    whole, left = (np.linalg.norm(obs[2:]) for obs in (start.obs, states.obs[-1]))
    assert float(jnp.sum(states.reward)) == pytest.approx((whole - left) / MEAN_WAY, abs=1e-5)


def test_opposite_angles_move_oppositely_and_the_gain_scales():
    def moved(**params):
        task = ENV.tasks.make(params)
        start = ENV.reset(task, KEY)
        return np.asarray(ENV.position(drive(task, start, actions)) - ENV.position(start))

    actions = jax.random.uniform(KEY, (10, 2), minval=-1.0, maxval=1.0)
    one = moved(angle=0.5, gain=1.0)
    np.testing.assert_allclose(moved(angle=0.5 - math.pi, gain=1.0), -one, atol=1e-5)
    np.testing.assert_allclose(moved(angle=0.5, gain=2.0), 2 * one, atol=1e-5)
    quarter = moved(angle=0.5 + math.pi / 2, gain=1.0)
    np.testing.assert_allclose(quarter, np.stack([-one[:, 1], one[:, 0]], axis=1), atol=1e-5)


def test_the_task_is_not_seen():
    """What is seen at a reset does not depend on the task, and after a step on nothing but the places."""
    other = ENV.tasks.make({"angle": -1.0, "gain": 0.7, "mirrored": 1})
    here, there = (ENV.reset(task, KEY) for task in (TASK, other))
    np.testing.assert_array_equal(here.obs, there.obs)
    assert here.obs.shape == (ENV.observation_size,) == (4,)
    after = ENV.step(TASK, here, jnp.array([0.3, 0.1]))
    np.testing.assert_allclose(after.obs[:2] + after.obs[2:], here.world.goal, atol=1e-6)
    np.testing.assert_array_equal(after.obs[:2], ENV.position(after))


@pytest.mark.parametrize(
    ("place", "paid"), [((0, 0), 0), ((1, -1), 0), ((1.01, 0), 1), ((0, -1.2), 1), ((0.9, 0.9), 0), ((-1.01, 1.01), 1)]
)
def test_cost_by_hand(place, paid):
    assert float(outside(jnp.asarray(place, jnp.float32))) == paid


def test_starts_goals_and_the_end():
    assert isinstance(ENV, Environment)
    states = jax.vmap(ENV.reset, (None, 0))(TASK, jax.random.split(KEY, 400))
    start, goal = np.asarray(states.world.start), np.asarray(states.world.goal)
    for places in (start, goal):  # a disc: half of them within √½ of its radius, and on all sides
        far = np.linalg.norm(places, axis=1)
        assert far.max() <= PLACES * (1 + 1e-6)
        assert np.mean(far < PLACES / math.sqrt(2)) == pytest.approx(0.5, abs=0.08)
        assert np.all(np.abs(places.mean(axis=0)) < 0.06)
    assert np.abs(np.corrcoef(start.T, goal.T)[:2, 2:]).max() < 0.15  # one tells nothing of the other
    assert np.linalg.norm(goal - start, axis=1).mean() == pytest.approx(MEAN_WAY, rel=0.06)
    assert not np.any(states.reward) and not np.any(states.cost)
    after = drive(TASK, ENV.reset(TASK, KEY), jnp.zeros((EPISODE_LENGTH, 2)))
    np.testing.assert_array_equal(after.truncated, np.arange(1, EPISODE_LENGTH + 1) == EPISODE_LENGTH)
    assert not np.any(after.terminated)


def test_who_knows_the_task_earns_the_best_value_at_no_cost():
    for split in ("train", "shifted"):
        tasks = ENV.tasks.sample_batch(KEY, 50, split)
        starts = jax.vmap(ENV.reset)(tasks, jax.random.split(KEY, 50))
        best = jax.vmap(optimal_value)(tasks, starts.world.start, starts.world.goal)
        states = jax.vmap(steered)(tasks, starts)
        whole = jnp.linalg.norm(starts.world.goal - starts.world.start, axis=1)
        np.testing.assert_allclose(best, whole / MEAN_WAY, rtol=1e-5)  # every goal of the splits can be reached
        np.testing.assert_allclose(jnp.sum(states.reward, axis=1), best, atol=1e-4)
        assert not np.any(states.cost)


@jax.jit
def dipole(task, start):
    """The states of a policy that knows nothing of its task: a thrust along the square of the offset."""

    def step(state, _):
        x, y = state.obs[2:]
        squared = jnp.stack([x * x - y * y, 2 * x * y])
        after = ENV.step(task, state, squared / jnp.sqrt(x * x + y * y))
        return after, after

    return jax.lax.scan(step, start, None, EPISODE_LENGTH)[1]


def test_one_policy_is_good_under_every_angle_but_not_on_a_mirrored_craft():
    """What the mirrored crafts are for: see the module."""
    tasks = ENV.tasks.sample_batch(KEY, 400, "train")
    assert 150 < jnp.sum(tasks.params["mirrored"]) < 250
    starts = jax.vmap(ENV.reset)(tasks, jax.random.split(KEY, 400))
    left = jnp.linalg.norm(jax.vmap(dipole)(tasks, starts).obs[:, -1, 2:], axis=1)
    nearer = np.asarray(left < 0.5 * jnp.linalg.norm(starts.obs[:, 2:], axis=1))
    mirrored = np.asarray(tasks.params["mirrored"]) == 1
    assert nearer[~mirrored].mean() > 0.7 and nearer[mirrored].mean() < 0.15
    angles = np.asarray(tasks.params["angle"])[~mirrored]
    for low in (-math.pi, -math.pi / 2, 0, math.pi / 2):
        assert nearer[~mirrored][(angles >= low) & (angles < low + math.pi / 2)].mean() > 0.6


def test_the_best_value_bounds_what_a_weak_thruster_earns():
    """Of all constant actions the best comes up to it: the best of a linear motion is a straight way."""
    task = ENV.tasks.make({"angle": 0.7, "gain": 0.05})
    start = ENV.reset(task, KEY)
    best = float(optimal_value(task, start.world.start, start.world.goal))
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 1, 2)
    actions = jnp.broadcast_to(grid, (len(grid), EPISODE_LENGTH, 2))
    earned = jnp.sum(jax.vmap(drive, (None, None, 0))(task, start, actions).reward, axis=1)
    whole = float(jnp.linalg.norm(start.obs[2:])) / MEAN_WAY
    assert 0.2 * whole < best < 0.9 * whole
    assert best - 0.01 < float(jnp.max(earned)) <= best + 1e-5


def test_drawn_tasks_cover_the_circle_and_lie_in_their_ranges():
    for split, low, high in (("train", 0.6, 1.4), ("held-out", 0.6, 1.4), ("shifted", 1.4, 2.0)):
        params = jax.tree.map(np.asarray, ENV.tasks.sample_batch(KEY, 400, split).params)
        counts, _ = np.histogram(params["angle"], bins=4, range=(-math.pi, math.pi))
        assert counts.sum() == 400 and counts.min() > 70  # a quarter of the draws each
        assert low <= params["gain"].min() < low + 0.05 and high - 0.05 < params["gain"].max() <= high


def test_the_contract_holds_and_the_picture_shows_box_and_goal():
    assert [str(finding) for finding in check(ENV)] == []
    state = ENV.reset(TASK, KEY)
    x, y = (float(value) for value in state.world.goal)
    assert scene_of(ENV, TASK, state) == (Disc(x, y, 0.1, "goal"), Wall(-HALF, HALF), Wall(HALF, HALF))
