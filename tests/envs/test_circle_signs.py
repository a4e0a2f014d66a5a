"""Circle with hidden signs: what the signs change, and that nothing of it is seen."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.families.circle_signs import one_wall_cost
from metacpo.envs.scene import Ring, Wall, scene_of

ENV, PLAIN = make("point-circle-signs"), make("point-circle")
KEY = jax.random.key(0)
SIGNS = [(d, s) for d in (1, -1) for s in (1, -1)]
SIZES = {"radius": 1.0, "wall": 0.3}


def task(direction, side):
    return ENV.tasks.make(SIZES | {"direction": direction, "side": side})


@pytest.fixture(scope="module")
def episodes():
    """Of each pair of signs, and of Point-Circle: the start and 80 steps forward with some turning, in worlds alike."""
    actions = jax.random.uniform(KEY, (80, 2), minval=-0.5, maxval=1.0)

    def drive(env, task):
        start = env.reset(task, KEY)

        def step(state, action):
            after = env.step(task, state, action)
            return after, after

        return start, jax.lax.scan(step, start, actions)[1]

    run = eqx.filter_jit(lambda task: drive(ENV, task))
    plain = eqx.filter_jit(lambda task: drive(PLAIN, task))(PLAIN.tasks.make(SIZES))
    return {pair: run(task(*pair)) for pair in SIGNS} | {"plain": plain}


def test_the_signs_are_not_seen(episodes):
    for pair in SIGNS:
        for seen, plain in zip(episodes[pair], episodes["plain"], strict=True):
            np.testing.assert_array_equal(seen.obs, plain.obs)
    assert ENV.observation_size == PLAIN.observation_size == plain.obs.shape[-1]


def test_the_direction_is_the_sign_of_the_reward(episodes):
    plain = np.asarray(episodes["plain"][1].reward)
    for direction, side in SIGNS:
        np.testing.assert_array_equal(episodes[direction, side][1].reward, direction * plain)
    assert np.abs(plain).max() > 1e-3


def test_one_wall_costs_on_its_side_alone(episodes):
    x = np.asarray(PLAIN.position(episodes["plain"][1]))[:, 0]
    for direction, side in SIGNS:
        np.testing.assert_array_equal(episodes[direction, side][1].cost[:, 0], side * x > 0.3)
    both = sum(episodes[1, side][1].cost for side in (1, -1))
    np.testing.assert_array_equal(both, episodes["plain"][1].cost)  # Point-Circle has both walls
    assert float(jnp.sum(both)) > 0


def test_a_reset_pays_nothing(episodes):
    for pair in SIGNS:
        assert float(episodes[pair][0].reward) == 0 and not np.any(episodes[pair][0].cost)


@pytest.mark.parametrize(("x", "side", "paid"), [(0.31, 1, 1), (0.29, 1, 0), (-0.31, 1, 0), (-0.31, -1, 1), (9, -1, 0)])
def test_cost_by_hand(x, side, paid):
    assert float(one_wall_cost(jnp.array([x, 5.0], jnp.float32), task(1, side))) == paid


def test_draws():
    """Sizes are those of Point-Circle, each of the four pairs of signs has a quarter of the tasks."""
    for split, low, high in (("train", 1.0, 1.5), ("held-out", 1.0, 1.5), ("shifted", 2.0, 2.5)):
        params = jax.tree.map(np.asarray, ENV.tasks.sample_batch(KEY, 400, split).params)
        assert low <= params["radius"].min() < params["radius"].max() <= high
        assert np.all((params["wall"] < params["radius"]) & (params["wall"] > 0.5 * params["radius"]))
        pairs = np.stack([params["direction"], params["side"]], axis=1)
        assert min(np.sum(np.all(pairs == pair, axis=1)) for pair in SIGNS) > 60


@pytest.mark.parametrize("side", [1, -1])
def test_the_picture_has_one_wall(side, episodes):
    wall = Wall(side * float(np.float32(0.3)))
    assert scene_of(ENV, task(1, side), episodes[1, side][0]) == (Ring(0.0, 0.0, 1.0, "course"), wall)
