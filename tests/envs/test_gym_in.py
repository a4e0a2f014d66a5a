"""Gymnasium environments: the same episodes as a plain loop, pure functions to the program."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import Environment
from metacpo.envs.gymnasium.importing import from_gymnasium
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

from .toy_gym import LIMIT, TASKS, Broken, Line, Told, calls, limited, line, six

KEY = jax.random.key(3)
TASK = TASKS.make({"gain": 0.75})
UP = jnp.array([0.5])


DRAWN = TASKS.sample_batch(jax.random.key(1), 3)
LINE = line()


@partial(jax.jit, static_argnums=0)
def roll(env, keys):
    policy = GaussianPolicy(env.observation_size, env.action_size, (4,), 0.7)
    phi, normaliser = policy.init(jax.random.key(5)), Normaliser.init(env.observation_size)
    return jax.vmap(lambda task, key: rollout(env, policy, phi, normaliser, task, key, 20))(DRAWN, keys)


def rolled(env, key=KEY):
    """20 episodes of one policy on each of 3 tasks, [3, T, 20, ...]."""
    return jax.tree.map(np.asarray, roll(env, jax.random.split(key, 3)))


def seeds_of(key, episodes):
    """The seeds that a rollout's episodes begin with, as `reset` draws them."""
    keys = jax.random.split(jax.random.split(key)[0], episodes)
    return [int(jax.random.bits(k, (), jnp.uint32) >> 1) for k in keys]


def test_it_is_an_environment():
    env = LINE
    assert isinstance(env, Environment)
    assert (env.observation_size, env.action_size, env.episode_length) == (3, 1, LIMIT)
    assert hash(env) == hash(env) and env != line()


def test_whole_episodes_are_those_of_a_plain_loop():
    got, gains = rolled(LINE), np.asarray(DRAWN.params["gain"])
    ended = []
    for i, (gain, key) in enumerate(zip(gains, jax.random.split(KEY, 3), strict=True)):
        for j, seed in enumerate(seeds_of(key, 20)):
            env = limited(Line)({"gain": float(gain)})
            obs, _ = env.reset(seed=seed)
            for t in range(LIMIT):
                np.testing.assert_array_equal(got.obs[i, t, j], obs.astype(np.float32))
                action = np.clip(got.action[i, t, j], -1, 1)
                obs, reward, terminated, truncated, info = env.step(action)
                assert got.reward[i, t, j] == np.float32(reward)
                assert got.cost[i, t, j] == info["cost"]
                assert got.valid[i, t, j] == 1
                if terminated or truncated:
                    break
            np.testing.assert_array_equal(got.final_obs[i, j], obs.astype(np.float32))
            assert got.terminated[i, j] == terminated
            assert got.valid[i, :, j].sum() == t + 1
            ended.append((terminated, truncated))
    assert {(True, False), (False, True)} <= set(ended)  # both ends were seen
    assert np.abs(got.action).max() > 1  # and actions beyond the bounds


def test_termination_truncation_and_the_last_observation_are_three_facts():
    env = LINE
    states = [env.reset(TASK, jax.random.key(i)) for i in range(8)]
    for _ in range(LIMIT):
        states = [s if s.terminated else env.step(TASK, s, UP) for s in states]
    for state in states:
        early = state.obs[2] < LIMIT
        assert bool(state.terminated) == bool(state.obs[2] <= LIMIT)
        assert bool(state.truncated) == (not early)
        assert int(state.steps) == min(int(state.obs[2]), LIMIT) == int(state.obs[1])
    assert {bool(s.terminated) for s in states} == {True, False}


def test_a_shorter_episode_length_truncates():
    env = line(episode_length=2)
    state = env.reset(TASK, KEY)
    for expected in (False, True):
        state = env.step(TASK, state, UP)
        assert bool(state.truncated) == expected


def test_the_same_transition_asked_again_is_answered_without_a_step():
    env = LINE
    start = env.step(TASK, env.reset(TASK, KEY), UP)
    once = env.step(TASK, start, UP)
    before = calls["stepped"]
    again = env.step(TASK, start, UP)
    assert calls["stepped"] == before
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), once, again))


def test_an_ended_episode_repeats_its_last_answer():
    env = line(episode_length=2)
    state = env.reset(TASK, KEY)
    for _ in range(2):
        state = env.step(TASK, state, UP)
    before = calls["stepped"]
    after = env.step(TASK, state, -UP)  # as a rollout does with worlds that ended
    assert calls["stepped"] == before
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), state, after))


def test_it_cannot_go_back_in_time():
    env = LINE
    first = env.step(TASK, env.reset(TASK, KEY), UP)
    env.step(TASK, first, UP)
    with pytest.raises(Exception, match="cannot go back in time: the state is at step 1, its environment at step 2"):
        jax.block_until_ready(env.step(TASK, first, -UP))


def test_several_episodes_may_begin_at_one_reset():
    """Two policies compared from the same starts: vmap resets once and steps twice."""
    env = LINE
    start = env.reset(TASK, KEY)
    actions = jnp.array([[0.5], [0.5], [-0.5]])

    def play(action):
        state = env.step(TASK, start, action)
        return state.obs[0], env.step(TASK, state, action).obs[0]

    first, second = jax.jit(jax.vmap(play))(actions)
    np.testing.assert_allclose(first - start.obs[0], [0.375, 0.375, -0.375], atol=1e-6)
    np.testing.assert_allclose(second - first, [0.375, 0.375, -0.375], atol=1e-6)
    later = env.step(TASK, start, jnp.array([1.0]))  # and a third time, much later
    assert float(later.obs[0] - start.obs[0]) == pytest.approx(0.75, abs=1e-6)


def test_the_task_cannot_change_within_an_episode():
    env = LINE
    state = env.step(TASK, env.reset(TASK, KEY), UP)
    with pytest.raises(Exception, match="the task changed within an episode"):
        jax.block_until_ready(env.step(TASKS.make({"gain": 0.1}), state, UP))


def test_every_reset_begins_episodes_that_no_other_shares():
    env = LINE
    a, b = env.reset(TASK, KEY), env.reset(TASK, KEY)
    assert int(a.world.ticket) != int(b.world.ticket)
    np.testing.assert_array_equal(a.obs, b.obs)
    after_a = env.step(TASK, a, UP)
    after_b = env.step(TASK, b, -UP)
    np.testing.assert_allclose([after_a.obs[0] - a.obs[0], after_b.obs[0] - b.obs[0]], [0.375, -0.375], atol=1e-6)


def test_episodes_that_nobody_ends_are_forgotten_and_their_environments_used_again():
    calls.clear()
    env = line()
    reset = jax.jit(jax.vmap(env.reset, (None, 0)))
    states = [reset(TASK, jax.random.split(jax.random.key(i), 64)) for i in range(20)]
    jax.block_until_ready(states)
    assert calls["built"] <= 1 + 9 * 64
    old, new = (jax.tree.map(lambda x: x[0], states[i]) for i in (0, -1))
    env.step(TASK, new, UP)
    np.testing.assert_array_equal(env.step(TASK, old, UP).obs[0], old.obs[0] + 0.375)  # a start is never lost
    gone = env.step(TASK, new, UP)
    for i in range(20):
        jax.block_until_ready(reset(TASK, jax.random.split(jax.random.key(i), 64)))
    with pytest.raises(Exception, match="is forgotten"):
        jax.block_until_ready(env.step(TASK, gone, UP))


def test_environments_are_kept_while_the_task_stays():
    rolled(LINE)
    before = calls["built"]
    rolled(LINE)
    assert calls["built"] == before


def test_one_that_can_be_told_its_task_is_not_built_anew():
    def play(gains):
        tasks = jax.vmap(lambda g: replace(TASK, params={"gain": g}))(gains)
        start = jax.vmap(env.reset, (0, None))(tasks, KEY)
        state = start
        for _ in range(LIMIT):  # to the end: they are free again
            state = jax.vmap(env.step, (0, 0, None))(tasks, state, UP)
        moved = state.obs[:, 0] - start.obs[:, 0]
        np.testing.assert_allclose(moved, 0.5 * gains * state.steps.astype(jnp.float32), atol=1e-4)

    env = line(Told)
    calls.clear()
    play(jnp.linspace(0.5, 1.0, 6))
    assert calls["built"] == 5  # and the one that was built to be examined
    play(jnp.linspace(1.1, 2.0, 6))
    assert (calls["built"], calls["told"]) == (5, 6)


def test_the_key_decides_everything():
    a, b, c = rolled(LINE), rolled(LINE), rolled(LINE, jax.random.key(4))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
    starts = a.obs[:, 0, :, 0]
    assert len(np.unique(starts)) == starts.size
    assert not np.isin(c.obs[:, 0, :, 0], starts).any()


def test_worlds_that_break_are_masked_by_the_rollout():
    sound, got = rolled(LINE), rolled(line(Broken))
    breaks = got.obs[:, 0, :, 2] // 3
    length = np.minimum(got.obs[:, 0, :, 2], LIMIT)
    t = np.arange(LIMIT)[None, :, None]
    last = np.where(breaks <= length, np.maximum(breaks, 1) - 1, length)
    np.testing.assert_array_equal(got.valid, t < last[:, None])
    np.testing.assert_array_equal(got.nonfinite, (breaks <= length).sum(axis=1))
    assert (breaks <= 1).any()  # some already in the first step
    assert np.isfinite(got.final_obs).all()
    np.testing.assert_array_equal(got.reward[got.valid > 0], sound.reward[got.valid > 0])


def test_two_costs_by_name_and_the_six_tuple():
    two = from_gymnasium(limited(Line), TASKS.with_cost_limit((3.0, 9.0)), cost_names=("cost", "late"))
    state = two.reset(TASK, KEY)
    assert state.cost.shape == (2,) and not state.cost.any()
    for t in range(1, 3):
        state = two.step(TASK, state, UP)
        np.testing.assert_array_equal(state.cost, [float(state.obs[0] > 0), t])
    tuples = six()
    other = tuples.step(TASK, tuples.reset(TASK, KEY), UP)
    np.testing.assert_array_equal(other.cost, [2 * float(other.obs[0] > 0)])


def test_the_position_is_a_function_of_the_environment():
    by_obs = line()
    by_env = line(position=lambda env: (env.unwrapped.place, -7.0))
    states = [env.step(TASK, env.reset(TASK, KEY), UP) for env in (by_obs, by_env)]
    np.testing.assert_array_equal(by_obs.position(states[0]), states[0].obs[:2])
    np.testing.assert_array_equal(by_env.position(states[1]), [states[1].obs[0], -7.0])
