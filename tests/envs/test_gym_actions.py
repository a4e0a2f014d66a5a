"""The scale of actions: finite bounds of a Box are the policy's [-1, 1], others are taken as they are."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box

from metacpo.envs.base import action_bound
from metacpo.envs.check import check
from metacpo.envs.gymnasium.facts import examine

from .tiny_gym import TASKS, Tiny, kind, tiny


def arrived(space, actions):
    """What the environment gets for actions [T, A], [T, A]."""
    built = []

    class T(Tiny):
        action_space = space

        def __init__(self, gain):
            super().__init__(gain)
            built.append(self)

    env, task = tiny(T), TASKS.make({})
    state = env.reset(task, jax.random.key(0))
    built[0].seen.clear()
    for action in np.asarray(actions, np.float32):
        state = env.step(task, state, jnp.asarray(action))
    jax.block_until_ready(state)
    assert all(action.dtype == space.dtype for action in built[0].seen)
    return np.array(built[0].seen)


@pytest.mark.parametrize(("low", "high"), [(4, 6), (-100, 100), (0, 1), (-1, 3), (-0.3, 0.1)])
@pytest.mark.parametrize("kind_of_float", [np.float32, np.float64])
def test_finite_bounds_are_mapped_from_the_policys_range(low, high, kind_of_float):
    actions = np.array([-1.0, -0.5, 0.0, 0.25, 1.0, -7.0, 7.0], np.float32)[:, None]
    got = arrived(Box(low, high, (1,), kind_of_float), actions)
    share = np.array([0, 0.25, 0.5, 0.625, 1, 0, 1])[:, None]
    np.testing.assert_allclose(got, low + share * (high - low), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got[[0, 4, 5, 6], 0], np.array([low, high, low, high], kind_of_float))  # exactly


def test_the_unit_box_is_unchanged_bit_for_bit():
    actions = np.random.default_rng(0).normal(size=(10, 1)).astype(np.float32)
    actions[:4, 0] = [-0.0, 1e-30, -1e-37, 0.1]
    got = arrived(Box(-1.0, 1.0, (1,)), actions)
    assert got.tobytes() == np.clip(actions, -1, 1).tobytes()


def test_entries_without_two_finite_bounds_are_taken_as_they_are():
    huge = np.finfo(np.float32).max
    low, high = np.array([-np.inf, 0, -huge, 4], np.float32), np.array([np.inf, np.inf, huge, 6], np.float32)
    got = arrived(Box(low, high), [[3.5, -2, 50, 0.5], [-3.5, 2, -50, -9]])
    np.testing.assert_array_equal(got, [[3.5, 0, 50, 5.5], [-3.5, 2, -50, 4]])


def test_a_batch_is_a_loop_over_its_worlds():
    facts = examine(kind(action_space=Box(4, 6, (1,)))(1.0), 10, ("cost",))
    actions = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4, 1)
    np.testing.assert_array_equal(facts.action(actions)[2, 1], facts.action(actions[2, 1]))


@pytest.mark.parametrize("high", [1.0, 100.0, math.inf])
def test_check_env_explores_the_whole_range_and_says_where_there_is_none(high):
    built = []

    class T(Tiny):
        action_space = Box(-high, high, (1,))

        def __init__(self, gain):
            super().__init__(gain)
            built.append(self)

    env = tiny(T)
    assert action_bound(env) == (1.0 if high < math.inf else math.inf)
    findings = check(env)
    assert not any(finding.fatal for finding in findings)
    seen = np.abs(np.concatenate([world.seen for world in built[1:]]))
    assert 0.95 * min(high, 1e3) < seen.max() <= high if high < math.inf else 0.95 < seen.max() <= 1
    notes = [finding.text for finding in findings if finding.name == "unbounded-actions"]
    assert notes == (
        []
        if high < math.inf
        else [
            "entries [0] of the 1 of an action have no two finite bounds: "
            "they are taken as the policy draws them, initial_std about 0 at first"
        ]
    )
