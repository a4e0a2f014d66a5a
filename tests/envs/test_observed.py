"""Policies that see the task, or remember: the worlds stay what they are, and the observation gains what it says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.config.schema import Config, ConfigError
from metacpo.envs import make
from metacpo.envs.base import action_bound
from metacpo.envs.check import check
from metacpo.envs.costs import SummedCosts
from metacpo.envs.observed import History, ObservedLimit, ObservedTask
from metacpo.envs.scene import Embodied, scene_of
from metacpo.envs.tasks import with_cost_limit
from metacpo.envs.wrapped import innermost
from metacpo.training.setup import build

from .toy_gym import TASKS, line

STEPS, WORLDS = 6, 3
WRAPPERS = {
    "task": ObservedTask,
    "history": lambda env: History(env, 2),
    "both": lambda env: ObservedTask(History(env, 2)),
    "limit": lambda env: ObservedLimit(env, env.tasks.cost_limit),
}


def episode(env, task, key=0):
    """States [T + 1] of WORLDS worlds under random actions, beyond the bounds too; and the actions [T, WORLDS, A]."""
    keys = jax.random.split(jax.random.key(key), WORLDS)
    actions = 1.5 * jax.random.normal(jax.random.key(key + 1), (STEPS, WORLDS, env.action_size))
    states = [jax.jit(jax.vmap(env.reset, (None, 0)))(task, keys)]
    step = jax.jit(jax.vmap(env.step, (None, 0, 0)))
    for action in actions:
        states.append(step(task, states[-1], action))
    return states, np.asarray(actions)


@cache
def unwrapped(name):
    """An environment, one of its tasks and its own episode, which all wrappers are compared with."""
    env = SummedCosts(make(name)) if name == "car-circle-hazard" else make(name)
    task = env.tasks.sample(jax.random.key(3), "shifted")
    return env, task, episode(env, task)[0]


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize(
    "name", ["navigation", *(pytest.param(x, marks=pytest.mark.slow) for x in ("tabular", "car-circle-hazard"))]
)
def test_the_worlds_are_bit_for_bit_those_of_the_inner_environment(name, kind):
    inner, task, states = unwrapped(name)
    env = WRAPPERS[kind](inner)
    assert (env.cost_names, env.episode_length, env.action_size) == (
        inner.cost_names,
        inner.episode_length,
        inner.action_size,
    )
    assert action_bound(env) == action_bound(inner) and env.tasks.parameters == inner.tasks.parameters
    for seen, plain in zip(episode(env, task)[0], states, strict=True):
        assert seen.obs.shape == (WORLDS, env.observation_size)
        # XLA fuses the Car's sensors with what follows them, and rounds their last digit otherwise.
        tolerance = 1e-6 if name == "car-circle-hazard" else 0
        np.testing.assert_allclose(seen.obs[:, : inner.observation_size], plain.obs, rtol=tolerance, atol=tolerance)
        for field in ("reward", "cost", "terminated", "truncated", "steps"):
            np.testing.assert_array_equal(getattr(seen, field), getattr(plain, field))
        np.testing.assert_array_equal(env.position(seen), inner.position(plain))


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize(
    "name", ["bandit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("navigation", "tabular"))]
)
def test_they_keep_the_contract(name, kind):
    assert [str(finding) for finding in check(WRAPPERS[kind](make(name))) if finding.fatal] == []


def test_the_task_is_scaled_from_its_range_in_the_family_s_order():
    """Point-Circle's parameters at their lowest are −1, at their highest 1, halfway 0."""
    env = ObservedTask(make("point-circle"))
    fields = env.tasks.parameters
    for place, name in enumerate(fields):
        for share in (0.0, 0.5, 1.0):
            value = fields[name].low + share * (fields[name].high - fields[name].low)
            task = env.tasks.sample(jax.random.key(0))
            task = type(task)(task.cost_limit, task.params | {name: jnp.float32(value)})
            seen = env.reset(task, jax.random.key(1)).obs[env.env.observation_size :]
            assert seen.shape == (len(fields),)
            assert float(seen[place]) == pytest.approx(2 * share - 1, abs=1e-5)


def test_the_past_by_hand():
    """Entries (observation, action, cost) of the steps before, the newest first; zeros before the start."""
    inner = make("tabular")
    env, task = History(inner, 3), inner.tasks.make({})
    states, actions = episode(env, task)
    plain = episode(inner, task)[0]
    size = inner.observation_size + inner.action_size + 1
    for t, state in enumerate(states):
        past = np.asarray(state.obs[:, inner.observation_size :]).reshape(WORLDS, 3, size)
        for back in range(3):
            before = t - 1 - back
            expected = np.zeros((WORLDS, size), np.float32)
            if before >= 0:
                cost = plain[before + 1].cost
                expected = np.concatenate([plain[before].obs, actions[before], cost], axis=1)
            np.testing.assert_array_equal(past[:, back], expected)
    assert float(sum(state.cost.sum() for state in plain)) > 0


def test_the_task_is_appended_once_to_a_history_of_the_plain_observation():
    config = Config.preset("navigation", observe_task=True, history=2)
    env, plain = build(config).env, make("navigation")
    entry = plain.observation_size + plain.action_size + 1
    assert env.observation_size == plain.observation_size + 2 * entry + len(plain.tasks.parameters)
    assert build(config).policy.observation_size == env.observation_size
    task = plain.tasks.sample(jax.random.key(0))
    first, *_, last = episode(env, task)[0]
    end = -len(plain.tasks.parameters)
    np.testing.assert_array_equal(first.obs[:, end:], last.obs[:, end:])


def test_the_limits_are_seen_as_multiples_of_the_usual_ones():
    """In every step, and another limit is seen the next time; a usual limit of 0 has no multiples."""
    env = ObservedLimit(make("car-circle-hazard"), (20.0, 0.0))
    task = with_cost_limit(env.tasks.make({}), (5.0, 3.0))
    for limits, shares in ((task.cost_limit, (0.25, 3.0)), ((40.0, 1.0), (2.0, 1.0))):
        state = env.reset(with_cost_limit(task, tuple(float(h) for h in limits)), jax.random.key(0))
        np.testing.assert_allclose(state.obs[env.env.observation_size :], shares, rtol=1e-6)
        assert state.obs.shape == (env.observation_size,)


def test_drawn_limits_vary_as_the_settings_say_and_are_seen():
    config = Config.preset("bandit", limit_factors=(0.5, 2.0), observe_limit=True, cost_limit=0.2)
    setup = build(config)
    tasks = setup.tasks.sample_batch(jax.random.key(0), 400)
    shares = np.asarray(tasks.cost_limit)[:, 0] / 0.2
    assert 0.5 <= shares.min() < 0.52 and 1.95 < shares.max() <= 2.0
    seen = jax.vmap(setup.env.reset)(tasks, jax.random.split(jax.random.key(1), 400)).obs
    assert setup.policy.observation_size == seen.shape[1] == 2
    np.testing.assert_allclose(seen[:, 1], shares, rtol=1e-6)
    assert float(setup.tasks.make({}).cost_limit[0]) == pytest.approx(0.2)
    assert build(Config.preset("navigation")).tasks.limit_factors == (0.6, 1.4)  # the family's own, where none is given


def test_task_and_limit_follow_the_observation_in_this_order():
    setup = build(Config.preset("navigation", observe_limit=True, observe_task=True, history=2))
    both, plain = setup.env, build(Config.preset("navigation", observe_task=True, history=2)).env
    task, key = with_cost_limit(setup.tasks.make({}), 4.0), jax.random.key(0)
    np.testing.assert_array_equal(both.reset(task, key).obs, np.append(plain.reset(task, key).obs, np.float32(4 / 8)))


def test_a_limit_that_never_varies_is_not_to_be_seen():
    says = r"^observe_limit: true where all tasks have 1 times the limit; give limit_factors a range, as \[0.5, 2\]$"
    with pytest.raises(ConfigError, match=says):
        build(Config.preset("bandit", observe_limit=True))


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ((2.0, 0.5), r"\[2.0, 0.5\] is not \[low, high\] with low <= high"),
        ((0.5,), r"\[0.5\] is not \[low, high\] with low <= high"),
        ((0.5, 1.0, 2.0), r"\[0.5, 1.0, 2.0\] is not \[low, high\] with low <= high"),
        ((-1.0, 2.0), r"-1.0 is not in \[0, inf\)"),
        ((0.5, float("nan")), r"nan is not in \[0, inf\)"),
        (("a", 2.0), r"'a' is not a number"),
        (2.0, r"2.0 is not a list"),
    ],
)
def test_factors_of_the_limit_are_a_range(factors, says):
    with pytest.raises(ConfigError, match=f"^limit_factors: {says}$"):
        Config.preset("bandit", limit_factors=factors)


def test_pictures_look_through_the_wrappers():
    inner = make("car-circle-hazard")
    env = ObservedTask(History(SummedCosts(inner), 2))
    task, key = inner.tasks.make({}), jax.random.key(0)
    state, plain = env.reset(task, key), inner.reset(task, key)
    assert scene_of(env, task, state) == scene_of(inner, task, plain)
    found, bare = innermost(env, state)
    assert found is inner and isinstance(found, Embodied) and bare is not None
    np.testing.assert_array_equal(
        np.asarray(found.bodies(task, bare).physics.qpos), np.asarray(inner.bodies(task, plain).physics.qpos)
    )


def test_a_gymnasium_environment_can_be_wrapped_too():
    inner = line()
    env, task = ObservedTask(History(inner, 2)), TASKS.make({"gain": 0.75})
    for seen, plain in zip(episode(env, task)[0], episode(inner, task)[0], strict=True):
        np.testing.assert_array_equal(seen.reward, plain.reward)
        np.testing.assert_array_equal(seen.obs[:, : inner.observation_size], plain.obs)


@pytest.mark.parametrize("length", [-1, 65])
def test_a_history_has_a_length_that_is_allowed(length):
    with pytest.raises(ConfigError, match=rf"history: {length} is not in \[0, 64\]"):
        Config.preset("navigation", history=length)
