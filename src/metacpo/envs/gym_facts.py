"""What one needs to know of a Gymnasium environment, checked before anything is trained on it."""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class GymnasiumError(ValueError):
    """A Gymnasium environment that cannot be trained on as it is; the message is one line with the remedy."""


@dataclass(frozen=True, eq=False)
class Facts:
    """Names and sizes of an environment, the bounds of its actions [A], and where it says what a step cost."""

    name: str
    observation_size: int
    action_size: int
    low: np.ndarray
    high: np.ndarray
    action_type: np.dtype
    episode_length: int
    cost_names: tuple[str, ...]

    def observation(self, obs: Any) -> np.ndarray:
        """The observation [O], if it is one."""
        obs = np.asarray(obs)
        if obs.shape != (self.observation_size,):
            wanted = f"observation_space has ({self.observation_size},)"
            raise GymnasiumError(f"{self.name}: an observation has shape {obs.shape}; {wanted}: mend either")
        return obs

    def outcome(self, result: Any) -> tuple[np.ndarray, float, list[float], bool, bool]:
        """(observation [O], reward, costs [m], terminated, truncated) of what `env.step` returned.

        Gymnasium's 5-tuple has the costs in info. Safety-Gymnasium's 6-tuple has the one cost in the third place.
        """
        if len(result) == 6:
            obs, reward, cost, terminated, truncated, info = result
            given = {self.cost_names[0]: cost} if len(self.cost_names) == 1 else info
        elif len(result) == 5:
            obs, reward, terminated, truncated, given = result
        else:
            wanted = "5 (Gymnasium) or 6 with the cost in the third place (Safety-Gymnasium)"
            raise GymnasiumError(f"{self.name}: a step returns {len(result)} things; return {wanted}")
        costs = [self._cost(given, name) for name in self.cost_names]
        return self.observation(obs), float(reward), costs, bool(terminated), bool(truncated)

    def _cost(self, info: Mapping[str, Any], name: str) -> float:
        if name not in info:
            remedy = f"add info[{name!r}] in the environment (a wrapper will do), or name what it has in cost_names"
            raise GymnasiumError(f"{self.name}: info has no {name!r} after a step; {remedy}")
        cost = info[name]
        if not isinstance(cost, numbers.Real | np.bool_):
            raise GymnasiumError(f"{self.name}: info[{name!r}] is {cost!r} after a step; make it one number")
        return float(cost)


def examine(env: gymnasium.Env, episode_length: int | None, cost_names: tuple[str, ...]) -> Facts:
    """The facts of `env`, after one reset and one step of it. Raises GymnasiumError for what cannot be used."""
    name = _name(env)
    observation = _box(env.observation_space, f"{name}: observation_space", "gymnasium.wrappers.FlattenObservation")
    action = _box(env.action_space, f"{name}: action_space", "an ActionWrapper that takes a Box of floats")
    if not cost_names:
        raise GymnasiumError(f"{name}: cost_names is empty; name at least one cost, such as 'cost'")
    facts = Facts(
        name=name,
        observation_size=observation.shape[0],
        action_size=action.shape[0],
        low=action.low.astype(np.float64),
        high=action.high.astype(np.float64),
        action_type=np.dtype(action.dtype),
        episode_length=_length(env, name) if episode_length is None else episode_length,
        cost_names=cost_names,
    )
    if facts.episode_length < 1:
        raise GymnasiumError(f"{name}: episode_length is {facts.episode_length}; give at least 1 step")
    obs, _ = env.reset(seed=0)
    facts.observation(obs)
    action.seed(0)
    facts.outcome(env.step(action.sample()))
    return facts


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _box(space: gymnasium.Space, where: str, remedy: str) -> Box:
    """The space, if it is a vector of floats."""
    if isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space
    raise GymnasiumError(f"{where} is {space}; wanted: a Box of floats with one axis. {remedy} makes it one")


def _length(env: gymnasium.Env, name: str) -> int:
    """Steps of Gymnasium's own time limit."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    if env.has_wrapper_attr("_max_episode_steps"):  # a TimeLimit round an environment that was never registered
        return env.get_wrapper_attr("_max_episode_steps")
    raise GymnasiumError(f"{name}: has no time limit; give episode_length, or wrap it in gymnasium.wrappers.TimeLimit")
