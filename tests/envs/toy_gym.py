"""Tiny Gymnasium environments: episodes that end early or at the time limit, several costs, and every mistake."""

from collections import Counter

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit

from metacpo.envs import Environment
from metacpo.envs.gymnasium.importing import from_gymnasium
from metacpo.envs.tasks import Parameter, TaskDistribution

LIMIT = 12  # steps
calls: Counter[str] = Counter()  # what the tests count: "built", "told", "stepped"


class Line(gymnasium.Env):
    """A point on a line moves by gain · action. Observation [3]: place, steps taken, step after which it terminates.

    Reward: the action that arrived; costs: 1 at places > 0 ("cost"), steps taken ("late"). A third of the worlds is
    terminated early, at a step that the seed draws.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, gain: float):
        calls["built"] += 1
        self.gain = gain
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place, self.end = 0, self.np_random.normal(), self.np_random.integers(2, 3 * LIMIT)
        return self._obs(), {}

    def step(self, action):
        calls["stepped"] += 1
        assert self.steps < LIMIT and self.steps < self.end, "stepped after its end"
        self.steps += 1
        self.place += self.gain * float(action[0])
        info = {"cost": float(self.place > 0), "late": self.steps}
        return self._obs(), float(action[0]), self.steps >= self.end, False, info

    def _obs(self):
        return np.array([self.place, self.steps, self.end], np.float64)


class Told(Line):
    """One that can be told its next task."""

    def set_task(self, params):
        calls["told"] += 1
        self.gain = params["gain"]


class Broken(Line):
    """Its place is no number from a step on that the seed draws."""

    def step(self, action):
        obs, *rest = super().step(action)
        if self.steps >= self.end // 3:
            obs[0] = np.nan
        return obs, *rest


class SixTuple(Line):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, 2 * info["cost"], terminated, truncated, {}


class NoCost(Line):
    def step(self, action):
        return *super().step(action)[:4], {"late": 1}


class CostAtFirst(Line):
    """Its cost is missing from the third step on."""

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info if self.steps < 3 else {}


TASKS = TaskDistribution(
    parameters={"gain": Parameter(0.5, low=0.0, high=2.0, unit="m")},
    draw={"train": lambda key: {"gain": jax.random.uniform(key)}},
    cost_limit=(3.0,),
)


def limited(kind):
    """What builds environments of this kind under Gymnasium's own time limit."""
    return lambda params: TimeLimit(kind(params["gain"]), LIMIT)


def line(kind=Line, **settings):
    """The environment of this kind."""
    return from_gymnasium(limited(kind), TASKS, **settings)


def six() -> Environment:
    """One with Safety-Gymnasium's steps, which Gymnasium's own wrappers do not take."""
    return from_gymnasium(lambda params: SixTuple(params["gain"]), TASKS, episode_length=LIMIT)
