"""Gymnasium environments that cannot be used: one line with the remedy, before any training where it can be known."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TransformAction

from metacpo.cli.main import _one_line
from metacpo.envs.gymnasium.facts import GymnasiumError
from metacpo.envs.gymnasium.importing import from_gymnasium

from .toy_gym import LIMIT, TASKS, CostAtFirst, Line, NoCost, limited, line


def played(env):
    """Four steps of one world."""
    task = TASKS.make({})
    state = env.reset(task, jax.random.key(0))
    for _ in range(4):
        state = env.step(task, state, jnp.zeros(1))
    return jax.block_until_ready(state)


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (limited(NoCost), {}, r"NoCost: info has no 'cost' after a step; add info\['cost'\]"),
        (limited(Line), {"cost_names": ("speed",)}, "info has no 'speed' after a step"),
        (limited(Line), {"cost_names": ("cost", "late")}, "tasks: cost_limit has 1 numbers, cost_names 2"),
        (limited(Line), {"episode_length": 0}, "episode_length is 0"),
        (lambda params: Line(1.0), {}, "Line: has no time limit; give episode_length"),
        (lambda params: TransformAction(limited(Line)(params), None, Discrete(2)), {}, "action_space is Discrete"),
        (lambda params: 3, {}, "make: returned a int; return a gymnasium.Env"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_before_any_training(make, settings, said):
    with pytest.raises(GymnasiumError, match=said) as error:
        from_gymnasium(make, TASKS, **settings)
    assert "\n" not in str(error.value)


class Picture(Line):
    observation_space = Box(0, 255, (4, 4, 3), np.uint8)


class Wordy(Line):
    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"cost": "much"}


class FourThings(Line):
    def step(self, action):
        return super().step(action)[1:]


class Longer(Line):
    def _obs(self):
        return np.zeros(4)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Picture, "Picture: observation_space is Box.*FlattenObservation"),
        (Wordy, r"Wordy: info\['cost'\] is 'much' after a step; make it one number"),
        (FourThings, "a step returns 4 things"),
        (Longer, r"an observation has shape \(4,\)"),
    ],
)
def test_mistakes_in_an_environment_are_named(kind, said):
    with pytest.raises(GymnasiumError, match=said):
        from_gymnasium(lambda params: kind(params["gain"]), TASKS, episode_length=LIMIT)


def test_a_cost_that_goes_missing_later_is_an_error_not_zero():
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        played(line(CostAtFirst))
    assert _one_line(error.value).startswith("CostAtFirst: info has no 'cost' after a step; add")


def test_a_failure_of_the_environment_is_named():
    class Failing(Line):
        def reset(self, *, seed=None, options=None):
            if seed:
                raise OSError("no such scene")
            return super().reset(seed=seed)

    with pytest.raises(jax.errors.JaxRuntimeError, match="Failing: reset failed with OSError: no such scene"):
        played(line(Failing))


def test_spaces_of_gymnasium_are_not_changed():
    env = gymnasium.wrappers.TimeLimit(Line(1.0), LIMIT)
    from_gymnasium(lambda params: env, TASKS)
    assert env.action_space == Line.action_space
