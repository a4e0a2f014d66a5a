"""Point-Circle: reward, cost, observation, starts and the end of an episode, by hand numbers."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import UnknownEnvironment, make
from metacpo.envs.families.circle import POINT, circle_reward, wall_cost
from metacpo.envs.physics import MujocoC, PhysicsError

ENV = make("point-circle")
TASK = ENV.tasks.make({"radius": 1.0, "wall": 0.9})
VELOCITY = slice(15, 17)  # of the sensors, world frame
FORWARD, LEFT, IDLE = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), jnp.zeros(2)
reset, step = jax.jit(ENV.reset), jax.jit(ENV.step)


def at(x: float, y: float, heading: float, velocity=(0.0, 0.0, 0.0)):
    """The state of a robot that was put there."""
    state = reset(TASK, jax.random.key(0))
    physics = ENV.physics.reset(jnp.array([x, y, heading]), jnp.array(velocity))
    return eqx.tree_at(lambda s: s.world, state, physics)


@pytest.mark.parametrize(
    ("position", "velocity", "radius", "reward"),
    [
        ((1, 0), (0, 1), 1.0, 0.1),  # counter-clockwise at 1 m/s on the circle
        ((1, 0), (0, -1), 1.0, -0.1),
        ((0, 2), (-3, 0), 1.5, 0.2),  # 3 m/s, 0.5 m outside: 0.1 · 3 / 1.5
        ((0, -0.5), (3, 0), 1.5, 0.15),  # 3 m/s, 1 m inside: 0.1 · 3 / 2
        ((3, 4), (3, 4), 5.0, 0.0),  # outward
        ((0, 0), (1, 1), 1.0, 0.0),
    ],
)
def test_reward_by_hand(position, velocity, radius, reward):
    arguments = [jnp.asarray(a, jnp.float32) for a in (position, velocity, radius)]
    assert float(circle_reward(*arguments)) == pytest.approx(reward, abs=1e-7)


@pytest.mark.parametrize(("x", "y", "cost"), [(0.89, 0, 0), (0.91, 0, 1), (-0.91, 5, 1), (-0.89, 5, 0), (0, 9, 0)])
def test_cost_is_one_outside_the_walls(x, y, cost):
    assert float(wall_cost(jnp.array([x, y], jnp.float32), jnp.float32(0.9))) == cost
    after = step(TASK, at(x, y, 0.0), IDLE)
    assert after.cost.shape == (1,)
    assert float(after.cost[0]) == cost


def test_driving_counter_clockwise_pays_and_clockwise_costs_as_much():
    ahead, back = (step(TASK, at(1.0, 0.0, sign * math.pi / 2), FORWARD) for sign in (1, -1))
    assert float(ahead.reward) > 1e-3
    assert float(back.reward) == pytest.approx(-float(ahead.reward), rel=1e-5)
    assert float(ENV.position(ahead)[1]) > 0 > float(ENV.position(back)[1])


def test_velocity_is_the_slope_of_position():
    """Over one MuJoCo step, which moves the robot with its new velocity."""
    physics = MujocoC(POINT, 1, 1)

    @jax.jit
    def run(actions):
        start = physics.reset(jnp.array([0.3, -0.5, 1.0]), jnp.zeros(3))
        return jax.lax.scan(lambda s, a: (physics.step(s, a),) * 2, start, actions)[1]

    after = run(jax.random.normal(jax.random.key(0), (400, 2)) + 0.5)
    position = np.ascontiguousarray(after.bits).view(np.float64)[:, 1:3]  # the time is first
    slope = np.diff(position, axis=0) / 0.002
    np.testing.assert_allclose(slope, after.sensors[1:, VELOCITY], atol=1e-6)
    assert np.max(np.abs(slope)) > 0.3


def test_reward_is_that_of_position_and_velocity_after_the_step():
    actions = np.random.default_rng(0).uniform([-0.5, -0.7], [1.5, 1.3], (40, 2))
    state, rows = at(0.3, -0.5, 1.0), []
    for action in actions:
        state = step(TASK, state, jnp.asarray(action, jnp.float32))
        rows.append((ENV.position(state), state.world.sensors[VELOCITY], state.reward))
    positions, velocities, rewards = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    r = np.hypot(*positions.T)
    tangential = (positions[:, 0] * velocities[:, 1] - positions[:, 1] * velocities[:, 0]) / r
    np.testing.assert_allclose(rewards, 0.1 * tangential / (1 + np.abs(r - 1.0)), atol=1e-6)
    assert np.ptp(rewards) > 0.01


def test_observation_order():
    """Accelerometer, velocimeter, gyro, magnetometer, lidar of the centre; all but the last in robot axes."""
    heading, v, turn = math.pi / 2, 0.5, 0.25
    physics = ENV.physics.reset(jnp.array([1.0, 0.0, heading]), jnp.array([0.1, v, turn]))
    state = ENV._state(TASK, physics, jnp.int32(0), moved=False)
    assert state.obs.shape == (ENV.observation_size,) == (28,)
    obs = np.asarray(state.obs)
    assert obs[2] == pytest.approx(9.81)  # the floor's support, upward
    np.testing.assert_allclose(obs[3:6], [v, -0.1, 0], atol=1e-6)  # forward is +y of the world
    np.testing.assert_allclose(obs[6:9], [0, 0, turn], atol=1e-6)
    np.testing.assert_allclose(obs[9:12], [-0.5, 0, 0], atol=1e-6)  # the field (0, −0.5, 0) points backward
    lidar = np.zeros(16)
    lidar[[3, 4]] = 5 / 6  # the centre is 1 m to the left, range 6 m
    np.testing.assert_allclose(obs[12:], lidar, atol=1e-6)


def test_a_reset_has_no_reward_and_no_cost():
    state = ENV.reset(ENV.tasks.make({"wall": 0.05}), jax.random.key(3))
    assert float(state.reward) == 0
    np.testing.assert_array_equal(state.cost, [0])
    assert int(state.steps) == 0
    np.testing.assert_array_equal(state.world.sensors[15:18], 0)  # at rest


def test_every_episode_starts_somewhere_else():
    count = 400
    states = jax.jit(jax.vmap(ENV.reset, (None, 0)))(TASK, jax.random.split(jax.random.key(0), count))
    starts = np.asarray(ENV.position(states))
    assert np.all(np.abs(starts) <= 0.2)
    assert len(np.unique(starts, axis=0)) == count
    # Uniform: standard deviation 0.2/√3 = 0.115, four independent quadrants of place and of heading.
    np.testing.assert_allclose(starts.std(axis=0), 0.2 / math.sqrt(3), rtol=0.1)
    heading = np.asarray(states.world.sensors[:, 18:20])
    for plane in (starts, heading, np.stack([starts[:, 0], heading[:, 0]], 1)):
        quadrants = np.bincount((plane > 0) @ [1, 2], minlength=4)
        assert np.all(quadrants > 0.18 * count), quadrants


def test_an_episode_is_truncated_at_500_and_never_terminated():
    @jax.jit
    def run(state):
        def one(state, action):
            state = ENV.step(TASK, state, action)
            return state, (state.terminated, state.truncated, state.steps)

        return jax.lax.scan(one, state, jax.random.normal(jax.random.key(1), (502, 2)))[1]

    terminated, truncated, steps = run(ENV.reset(TASK, jax.random.key(2)))
    assert not np.any(terminated)
    np.testing.assert_array_equal(truncated, np.arange(1, 503) >= ENV.episode_length)
    np.testing.assert_array_equal(steps, np.arange(1, 503))
    assert ENV.episode_length == 500


def test_the_task_decides_reward_and_cost_but_not_the_motion():
    other = ENV.tasks.make({"radius": 2.0, "wall": 2.0})
    state = at(1.0, 0.0, math.pi / 2, (0.0, 1.0, 0.0))
    here, there = step(TASK, state, FORWARD), step(other, state, FORWARD)
    np.testing.assert_array_equal(here.world.bits, there.world.bits)
    assert float(there.reward) == pytest.approx(float(here.reward) / 2, rel=0.01)
    assert (float(here.cost[0]), float(there.cost[0])) == (1, 0)


def test_turning_left_is_counter_clockwise():
    state = at(0.0, 0.0, 0.0)
    for _ in range(20):
        state = step(TASK, state, LEFT)
    assert float(state.obs[8]) > 0.1  # gyro z
    assert float(state.world.sensors[19]) > 0  # the heading's y component


def test_unknown_names_are_refused():
    with pytest.raises(UnknownEnvironment, match="env: 'point-square' is not one of point-circle"):
        make("point-square")
    with pytest.raises(PhysicsError, match="physics: 'bullet' is not one of mujoco"):
        make("point-circle", physics="bullet")
