"""Rollouts: what is recorded, and what happens to worlds that end or break."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_env import NEVER, Counter

from metacpo.envs import Environment
from metacpo.envs.base import position_of
from metacpo.estimation import EstimationSettings, make_batch, surrogates
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout, rollout_with_states

ENV = Counter()
POLICY = GaussianPolicy(ENV.observation_size, ENV.action_size, hidden=(4,), initial_std=0.7)
PHI = POLICY.init(jax.random.key(5)) + 0.1
NORMALISER = Normaliser.init(ENV.observation_size).update(
    jnp.float32(9), jnp.array([0.0, 6.0, 12.0, 500.0, 0.0]), jnp.array([1.0, 9.0, 36.0, 2e5, 1.0])
)
EPISODES = 24
KEY = jax.random.key(7)


@jax.jit
def run(task, key, phi=PHI):
    return rollout(ENV, POLICY, phi, NORMALISER, task, key, EPISODES)


@jax.jit
def batch_of(trajectory):
    return make_batch(trajectory, NORMALISER, jnp.array([1.0]), EstimationSettings())


@pytest.fixture(scope="module")
def sound():
    return jax.tree.map(np.asarray, run(ENV.tasks.make({"breaking": 0.0}), KEY))


@pytest.fixture(scope="module")
def breaking():
    return jax.tree.map(np.asarray, run(ENV.tasks.make({"breaking": 1.0}), KEY))


def planned(trajectory):
    """The steps at which each world terminates and breaks, as its first observation says."""
    return trajectory.obs[0, :, 2], trajectory.obs[0, :, 3]


def test_the_toy_is_an_environment():
    assert isinstance(ENV, Environment)


def test_stored_log_prob_is_that_of_the_policy(sound):
    pi = POLICY(PHI, NORMALISER(jnp.asarray(sound.obs)))
    np.testing.assert_allclose(pi.log_prob(jnp.asarray(sound.action)), sound.log_prob, atol=1e-5)
    z = (sound.action - np.asarray(pi.mean)) / np.exp(np.asarray(pi.log_std))
    assert abs(z.mean()) < 0.2 and abs(z.std() - 1) < 0.15
    assert len(np.unique(z)) == z.size  # every step of every world has its own noise


def test_the_ratio_is_one_at_the_policy_that_made_the_data(sound):
    trajectory = jax.tree.map(jnp.asarray, sound)
    batch, _ = batch_of(trajectory)
    ratio = jnp.exp(POLICY(PHI, batch.z).log_prob(batch.action) - batch.log_prob)
    np.testing.assert_allclose(ratio, 1, atol=1e-5)
    L_R, c = surrogates(POLICY, PHI, batch)
    assert float(L_R) == pytest.approx(0, abs=1e-5)  # centred advantages
    np.testing.assert_allclose(c, batch.c, atol=1e-5)


def test_what_is_recorded_where(sound):
    """obs[t] comes before action[t]; reward, cost and position after it."""
    valid = sound.valid > 0
    follows = valid[:-1] & valid[1:]
    place, action = sound.obs[..., 0], sound.action[..., 0]
    np.testing.assert_allclose((place[1:] - place[:-1])[follows], 0.1 * action[:-1][follows], atol=1e-6)
    np.testing.assert_allclose(sound.reward[valid], action[valid])
    np.testing.assert_allclose(sound.position[..., 0][valid], (place + 0.1 * action)[valid], atol=1e-6)
    np.testing.assert_array_equal(sound.cost[..., 0][valid], (sound.position[..., 0] > 0)[valid])
    assert 0 < sound.cost.sum() < valid.sum()


def test_worlds_end_at_their_own_step(sound):
    ends, _ = planned(sound)
    length = np.minimum(ends, ENV.episode_length)
    t = np.arange(ENV.episode_length)[:, None]
    np.testing.assert_array_equal(sound.valid, t < length)
    np.testing.assert_array_equal(sound.terminated, ends <= ENV.episode_length)
    assert 0 < sound.terminated.sum() < EPISODES
    np.testing.assert_array_equal(sound.reward[sound.valid == 0], 0)
    np.testing.assert_array_equal(sound.cost[sound.valid == 0], 0)
    assert sound.nonfinite == 0


def test_final_obs_is_the_observation_after_the_last_step(sound):
    ends, _ = planned(sound)
    last = np.minimum(ends, ENV.episode_length).astype(int)
    np.testing.assert_array_equal(sound.final_obs[:, 1], last)
    world = np.arange(EPISODES)
    place = sound.obs[last - 1, world, 0] + 0.1 * sound.action[last - 1, world, 0]
    np.testing.assert_allclose(sound.final_obs[:, 0], place, atol=1e-6)
    np.testing.assert_array_equal(sound.final_obs[:, 4], sound.obs[0, :, 0])  # not that of a new episode


def test_worlds_that_break_are_masked_from_that_step_on(breaking):
    ends, breaks = planned(breaking)
    length = np.minimum(ends, ENV.episode_length)
    broken = breaks <= length
    assert broken.sum() >= 3 and (broken & (ends <= ENV.episode_length)).any()
    t = np.arange(ENV.episode_length)[:, None]
    np.testing.assert_array_equal(breaking.valid, t < np.where(broken, breaks - 1, length))
    assert breaking.nonfinite == broken.sum()
    np.testing.assert_array_equal(breaking.terminated, (ends <= ENV.episode_length) & ~broken)
    np.testing.assert_array_equal(breaking.final_obs[broken, 1], breaks[broken] - 1)


def test_nothing_of_a_broken_world_reaches_the_numbers(breaking):
    for name in ("obs", "action", "log_prob", "reward", "cost", "valid", "final_obs"):
        assert np.all(np.isfinite(getattr(breaking, name))), name
    trajectory = jax.tree.map(jnp.asarray, breaking)
    batch, stats = batch_of(trajectory)
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.all(jnp.isfinite(x))), (batch, stats)))
    dead = breaking.valid.reshape(-1) == 0
    assert np.all(np.asarray(batch.weight)[dead] == 0) and np.all(np.asarray(batch.cost_weight)[dead] == 0)


def test_worlds_that_do_not_break_are_not_touched(sound, breaking):
    _, breaks = planned(breaking)
    intact = breaks == NEVER
    assert 3 <= intact.sum() < EPISODES
    for name in ("action", "log_prob", "reward", "cost", "valid", "position"):
        same = getattr(sound, name)[:, intact] == getattr(breaking, name)[:, intact]
        assert np.all(same), name
    np.testing.assert_array_equal(sound.final_obs[intact], breaking.final_obs[intact])


def test_the_key_decides_everything(sound):
    task = ENV.tasks.make({"breaking": 0.0})
    again, other = run(task, KEY), run(task, jax.random.key(8))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), sound, again))
    assert not np.any(np.isin(other.action, sound.action))
    assert not np.any(np.isin(other.obs[0, :, 0], sound.obs[0, :, 0]))


def test_episodes_start_in_different_places(sound):
    assert len(np.unique(sound.obs[0, :, 0])) == EPISODES


def test_vmap_over_tasks_is_a_loop(sound, breaking):
    tasks = jax.tree.map(lambda *x: jnp.stack(x), *(ENV.tasks.make({"breaking": b}) for b in (0.0, 1.0)))
    both = jax.vmap(run, (0, None, None))(tasks, KEY, PHI)
    for i, one in enumerate((sound, breaking)):
        np.testing.assert_array_equal(both.valid[i], one.valid)
        np.testing.assert_allclose(both.action[i], one.action, atol=1e-5)


def test_the_states_are_those_of_the_same_rollout(breaking):
    """T + 1 states from the reset on: what the trajectory saw and got, and where each world stopped."""
    task = ENV.tasks.make({"breaking": 1.0})
    data, states = jax.jit(lambda key: rollout_with_states(ENV, POLICY, PHI, NORMALISER, task, key, EPISODES))(KEY)
    for name in ("obs", "action", "reward", "cost", "valid", "position", "final_obs"):
        np.testing.assert_array_equal(getattr(data, name), getattr(breaking, name))
    assert states.obs.shape == (ENV.episode_length + 1, EPISODES, ENV.observation_size)
    np.testing.assert_array_equal(states.obs[:-1], breaking.obs)
    np.testing.assert_array_equal(states.obs[-1], breaking.final_obs)
    valid = breaking.valid > 0
    np.testing.assert_array_equal(states.reward[1:][valid], breaking.reward[valid])
    np.testing.assert_array_equal(states.cost[1:][valid], breaking.cost[valid])
    assert not valid.all() and np.isfinite(states.obs).all()
    np.testing.assert_array_equal(states.obs[1:][~valid], states.obs[:-1][~valid])


class Placeless(Counter):
    position = property()  # pyright: ignore


def test_an_environment_without_a_position_is_rolled_out_all_the_same(sound):
    env, task = Placeless(), ENV.tasks.make({"breaking": 0.0})
    assert isinstance(env, Environment) and not hasattr(env, "position")
    got = jax.jit(lambda key: rollout(env, POLICY, PHI, NORMALISER, task, key, EPISODES))(KEY)
    for name in ("obs", "action", "reward", "cost", "valid", "position"):  # the first two of the observation
        np.testing.assert_array_equal(getattr(got, name), getattr(sound, name))


def test_the_position_of_an_observation_of_one_number():
    state = jax.vmap(lambda key: ENV.reset(ENV.tasks.make({}), key))(jax.random.split(KEY, 3))
    one = eqx.tree_at(lambda s: s.obs, state, state.obs[:, :1])
    place = position_of(Placeless(), one)
    np.testing.assert_array_equal(place, np.stack([state.obs[:, 0], np.zeros(3)], axis=1))
