"""The smallest Gymnasium environment, with any one thing in it replaced: obs [2], action [1], 10 steps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box

from metacpo.envs import GymnasiumError, from_gymnasium
from metacpo.envs.tasks import Parameter, TaskDistribution


def draw(low, high):
    return lambda key: {"gain": jax.random.uniform(key, (), minval=low, maxval=high)}


TASKS = TaskDistribution(
    parameters={"gain": Parameter(0.5, low=0.0, high=2.0, unit="m")},
    draw={"train": draw(0.0, 1.0), "shifted": draw(1.0, 2.0)},
    cost_limit=(3.0,),
)


class Tiny(gymnasium.Env):
    """Observation: gain · the action that arrived, and a random number. Reward: the action; cost: 1.

    seen: every action that has arrived. changed: parts of the answer to step number `at`, by name.
    """

    observation_space: gymnasium.Space = Box(-np.inf, np.inf, (2,))
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,))
    changed: Mapping[str, Any] = MappingProxyType({})
    at = 1

    def __init__(self, gain: float):
        self.gain, self.steps, self.seen = gain, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.obs(0.0), {}

    def step(self, action):
        self.steps += 1
        self.seen.append(action)
        place = self.gain * float(action[0])
        answer = dict(obs=self.obs(place), reward=place, terminated=False, truncated=False, info={"cost": 1.0})
        if self.steps == self.at:
            answer |= self.changed
        return tuple(answer.values())

    def obs(self, place):
        return np.array([place, self.np_random.normal()], np.float32)


def kind(**members) -> type[Tiny]:
    """Tiny with these members."""
    return type("T", (Tiny,), members)


def tiny(env: type[gymnasium.Env] = Tiny, tasks=TASKS, **settings):
    """The family of environments of this class."""
    settings = {"episode_length": 10} | settings
    return from_gymnasium(lambda params: env(params["gain"]), tasks, **settings)


def refusal(env: type[gymnasium.Env] = Tiny, **settings) -> str:
    """What the constructor says, one line."""
    try:
        tiny(env, **settings)
    except GymnasiumError as error:
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError("not refused")
