"""What one needs to know of a Gymnasium environment, checked before anything is trained on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from metacpo.envs.declared import length_faults
from metacpo.runtime.numeric import one_number, one_truth, real_array, shown

Position = Callable[[gymnasium.Env], Sequence[float]]
HUGE = float(np.finfo(np.float32).max)  # where a Box has this for a bound, no bound is meant


class GymnasiumError(ValueError):
    """A Gymnasium environment that cannot be trained on as it is; the message is one line with the remedy."""


class Boundary:
    """Round code that is not ours: whatever fails there becomes one line, that `doing` failed."""

    def __init__(self, doing: str):
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, GymnasiumError):
            text = " ".join(str(error).split())
            raise GymnasiumError(f"{self._doing} failed with {type(error).__name__}: {text}") from error


@dataclass(frozen=True, eq=False)
class Facts:
    """Names and sizes of an environment, the bounds of its actions [A], and where it says what a step cost.

    position: two numbers of an environment for path plots; the first two of the observation if None.
    """

    name: str
    observation_size: int
    action_size: int
    low: np.ndarray
    high: np.ndarray
    action_type: np.dtype
    episode_length: int
    cost_names: tuple[str, ...]
    position: Position | None = None

    @cached_property
    def bounded(self) -> np.ndarray:
        """Which entries of an action have two finite bounds [A]."""
        return (np.abs(self.low) < HUGE) & (np.abs(self.high) < HUGE)

    def action(self, chosen: np.ndarray) -> np.ndarray:
        """What the environment gets [*batch, A] for what a policy chose: -1 is an entry's low bound, 1 its high one.

        An entry without two finite bounds is taken as it is. All are clipped.
        """
        allowed = np.clip(chosen, self.low, self.high)
        mapped = self.bounded & ((self.low != -1) | (self.high != 1))  # the others are left exactly as they are
        if mapped.any():
            low, high = np.where(mapped, self.low, 0.0), np.where(mapped, self.high, 0.0)
            share = (1 + np.clip(chosen, -1, 1).astype(np.float64)) / 2
            scaled = np.clip(low * (1 - share) + high * share, low, high)
            allowed = np.where(mapped, scaled, allowed)
        return allowed.astype(self.action_type)

    def start(self, result: Any) -> np.ndarray:
        """The observation [O] of what `env.reset` returned."""
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise GymnasiumError(f"{self.name}: a reset returns {shown(result)}; return (observation, info)")
        return self._observation(result[0])

    def outcome(self, result: Any) -> tuple[np.ndarray, float, list[float], bool, bool]:
        """(observation [O], reward, costs [m], terminated, truncated) of what `env.step` returned.

        Gymnasium's 5-tuple has the costs in info. Safety-Gymnasium's 6-tuple has the one cost in the third place.
        """
        many = len(result) if isinstance(result, tuple | list) else None
        if many == 6:
            obs, reward, cost, terminated, truncated, info = result
            given = {self.cost_names[0]: cost} if len(self.cost_names) == 1 else info
        elif many == 5:
            obs, reward, terminated, truncated, given = result
        else:
            returned = shown(result) if many is None else f"{many} things"
            wanted = "5 (Gymnasium) or 6 with the cost in the third place (Safety-Gymnasium)"
            raise GymnasiumError(f"{self.name}: a step returns {returned}; return {wanted}")
        costs = [self._cost(given, name) for name in self.cost_names]
        ends = self._truth(terminated, "terminated"), self._truth(truncated, "truncated")
        return self._observation(obs), self._number(reward, "reward"), costs, *ends

    def place(self, env: gymnasium.Env, obs: np.ndarray) -> tuple[Any, ...] | np.ndarray:
        """Two numbers for path plots."""
        if self.position is None:
            return (*obs[:2], 0.0)[:2]
        given = self.position(env)
        place = real_array(given)
        if place is None or place.shape != (2,):
            raise GymnasiumError(f"{self.name}: position gives {shown(given)}; make it two numbers")
        return place

    def _observation(self, given: Any) -> np.ndarray:
        obs = real_array(given)
        if obs is None:
            raise GymnasiumError(f"{self.name}: an observation is {shown(given)}; make it an array of real numbers")
        if obs.shape != (self.observation_size,):
            wanted = f"observation_space has ({self.observation_size},)"
            raise GymnasiumError(f"{self.name}: an observation has shape {obs.shape}; {wanted}: mend either")
        return obs

    def _cost(self, info: Any, name: str) -> float:
        if not isinstance(info, Mapping):
            raise GymnasiumError(f"{self.name}: info is {shown(info)} after a step; return a dict with {name!r}")
        if name not in info:
            remedy = f"add info[{name!r}] in the environment (a wrapper will do), or name what it has in cost_names"
            raise GymnasiumError(f"{self.name}: info has no {name!r} after a step; {remedy}")
        return self._number(info[name], f"info[{name!r}]")

    def _number(self, value: Any, what: str) -> float:
        number = one_number(value)
        number = one_truth(value) if number is None else number  # a cost is often a comparison
        if number is None:
            raise GymnasiumError(f"{self.name}: {what} is {shown(value)} after a step; make it one number")
        return float(number)

    def _truth(self, value: Any, what: str) -> bool:
        truth = one_truth(value)
        if truth is None:
            raise GymnasiumError(f"{self.name}: {what} is {shown(value)} after a step; make it True or False")
        return truth


def examine(
    env: gymnasium.Env, episode_length: int | None, cost_names: tuple[str, ...], position: Position | None = None
) -> Facts:
    """The facts of `env`, after one reset and one step of it. Raises GymnasiumError for what cannot be used."""
    name = _name(env)
    with Boundary(f"{name}: its spaces"):
        spaces = env.observation_space, env.action_space
    observation = _box(spaces[0], f"{name}: observation_space", "gymnasium.wrappers.FlattenObservation")
    action = _box(spaces[1], f"{name}: action_space", "an ActionWrapper that takes a Box of floats")
    facts = Facts(
        name=name,
        observation_size=observation.shape[0],
        action_size=action.shape[0],
        low=action.low.astype(np.float64),
        high=action.high.astype(np.float64),
        action_type=np.dtype(action.dtype),
        episode_length=_length(env, name) if episode_length is None else episode_length,
        cost_names=cost_names,
        position=position,
    )
    for fault in length_faults(facts.episode_length):
        raise GymnasiumError(f"{name}: {fault.text}")
    with Boundary(f"{name}: reset"):
        facts.place(env, facts.start(env.reset(seed=0)))
    action.seed(0)
    with Boundary(f"{name}: step"):
        facts.place(env, facts.outcome(env.step(action.sample()))[0])
    return facts


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _box(space: gymnasium.Space, where: str, remedy: str) -> Box:
    """The space, if it is a vector of floats, one at least."""
    if isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        if space.shape[0] > 0:
            return space
        raise GymnasiumError(f"{where} is {space}, which has no numbers; wanted: a Box with at least one")
    raise GymnasiumError(f"{where} is {space}; wanted: a Box of floats with one axis. {remedy} makes it one")


def _length(env: gymnasium.Env, name: str) -> int:
    """Steps of Gymnasium's own time limit."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    if env.has_wrapper_attr("_max_episode_steps"):  # a TimeLimit round an environment that was never registered
        return env.get_wrapper_attr("_max_episode_steps")
    raise GymnasiumError(f"{name}: has no time limit; give episode_length, or wrap it in gymnasium.wrappers.TimeLimit")
