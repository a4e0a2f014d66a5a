"""Our environments as Gymnasium's: `gymnasium.make("metacpo/PointCircle-v0")`, `gymnasium.make_vec(...)`.

    observation       float32 [O], unbounded
    action            float32 [A], in ±action_bound of the environment
    reward            that of the environment
    info after a step "cost": the costs in total, see `total_cost`; "cost_<name>": each of them; "cost_limit": see below
    info after reset  "cost_limit" alone: no step was taken, so nothing was paid
    end               the environment's own: terminated, or truncated after env.unwrapped.episode_length steps

Both are thin: `VectorState` (worlds.py) has the worlds, their tasks and the compiled functions, one world here and
`num_envs` there. World i of a vector environment reset with `seed` is the single one reset with `seed + i`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool

from metacpo.envs import make
from metacpo.envs.base import CostKind, Environment, action_bound
from metacpo.envs.tasks import Task
from metacpo.envs.worlds import CostLimit, VectorState, random_words

Info = dict[str, Any]


def make_env(name: str, physics: str = "mujoco", cost_kind: CostKind | None = None, **settings: Any) -> "GymnasiumEnv":
    """Gymnasium's entry point: the family `name` as `metacpo.envs.make` has it; settings as GymnasiumEnv has them."""
    return GymnasiumEnv(_family(name, physics, cost_kind), **settings)


def make_vector_env(
    name: str, num_envs: int = 1, physics: str = "mujoco", cost_kind: CostKind | None = None, **settings: Any
) -> "GymnasiumVectorEnv":
    """Gymnasium's entry point of the vector environment; settings as GymnasiumVectorEnv has them."""
    return GymnasiumVectorEnv(_family(name, physics, cost_kind), num_envs, **settings)


# One environment a process: what is compiled for it is compiled once, however many Gymnasium environments there are.
_family = cache(make)


class GymnasiumEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One world of `env`.

    task: its parameters, reference values elsewhere; None is the reference task. `reset(options={"task": {...}})`
    changes it from that reset on.
    split: draw a new task of this split at every reset instead.
    cost_limit: what info["cost_limit"] says. A number limits the sum of the costs, several limit each in the order
    of env.cost_names (then info has an array [m]); None takes the task's limit for the sum. It changes nothing else.
    """

    def __init__(
        self,
        env: Environment,
        task: Mapping[str, object] | None = None,
        split: str | None = None,
        cost_limit: CostLimit = None,
        render_mode: str | None = None,
    ):
        _refuse_rendering(render_mode)
        self.metadata = {"render_modes": []}
        self._worlds = VectorState(env, 1, task, split, cost_limit)
        self.episode_length = env.episode_length
        self.observation_space, self.action_space = _spaces(env)

    @property
    def task(self) -> Task:
        """The task of the present episode."""
        return jax.tree.map(lambda x: x[0], self._worlds.tasks)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        self._worlds.set_task(options, np.ones(1, bool))
        self._worlds.reset(random_words(self.np_random)[None], np.ones(1, bool))
        return self._worlds.observe()[0], _first(self._worlds.limits())

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        worlds = self._worlds
        worlds.step(np.asarray(action)[None])
        reward, terminated, truncated = (float(worlds.reward()[0]), *(bool(end[0]) for end in worlds.ends()))
        return worlds.observe()[0], reward, terminated, truncated, _first(worlds.costs() | worlds.limits())


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` worlds of `env`, which one compiled call advances; the other arguments are those of GymnasiumEnv.

    A world that ended begins anew in the step after (Gymnasium's default, AutoresetMode.NEXT_STEP): that step takes no
    notice of its action and pays nothing, and the last observation of an episode comes as it is. In the other mode
    it would hide in the infos, and bootstrapping from the wrong one is the usual mistake.
    """

    def __init__(
        self,
        env: Environment,
        num_envs: int = 1,
        task: Mapping[str, object] | None = None,
        split: str | None = None,
        cost_limit: CostLimit = None,
        render_mode: str | None = None,
    ):
        _refuse_rendering(render_mode)
        self.num_envs = num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.episode_length = env.episode_length
        self.single_observation_space, self.single_action_space = _spaces(env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._worlds = VectorState(env, num_envs, task, split, cost_limit)
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._ended = np.zeros(num_envs, bool)

    @property
    def tasks(self) -> Task:
        """The tasks of the present episodes, stacked."""
        return self._worlds.tasks

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of each world, as SyncVectorEnv has it."""
        return tuple(self._generators)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """As SyncVectorEnv's: world i is seeded with seed + i, or with the i-th of several seeds.

        options: "task" as in GymnasiumEnv, and Gymnasium's "reset_mask" [num_envs] for those worlds alone.
        """
        which, options = self._mask(dict(options or {}))
        for i, one in enumerate(self._seeds(seed)):
            if one is not None and which[i]:
                self._generators[i] = seeding.np_random(one)[0]
        self._worlds.set_task(options, which)
        self._begin(which)
        return self._worlds.observe(), _masked(self._worlds.limits(), which)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        worlds, anew = self._worlds, self._ended
        worlds.step(np.asarray(actions))
        if anew.any():
            self._begin(anew)
        terminated, truncated = worlds.ends()
        self._ended = terminated | truncated
        infos = _masked(worlds.costs(), ~anew) | _masked(worlds.limits(), np.ones(self.num_envs, bool))
        return worlds.observe(), worlds.reward(), terminated, truncated, infos

    def _begin(self, which: np.ndarray) -> None:
        """A new episode in the worlds `which`; the generators of the others stay as they are."""
        words = np.zeros((self.num_envs, 2), np.uint32)
        for i in np.flatnonzero(which):
            words[i] = random_words(self._generators[i])
        self._worlds.reset(words, which)
        self._ended = self._ended & ~which

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: {len(seeds)} seeds for {self.num_envs} environments")
        return seeds

    def _mask(self, options: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """The worlds to reset, and the options without reset_mask."""
        which = options.pop("reset_mask", np.ones(self.num_envs, bool))
        fits = isinstance(which, np.ndarray) and which.dtype == bool and which.shape == (self.num_envs,)
        if not (fits and which.any()):
            raise ValueError(f"options.reset_mask: not a bool array [{self.num_envs}] with a True in it")
        return which, options


def _spaces(env: Environment) -> tuple[Box, Box]:
    """(of one observation, of one action)."""
    bound = action_bound(env)
    return Box(-np.inf, np.inf, (env.observation_size,)), Box(-bound, bound, (env.action_size,))


def _refuse_rendering(render_mode: str | None) -> None:
    """By a TypeError: Stable-Baselines3 asks every environment for "rgb_array" and takes this, alone, for a no."""
    if render_mode is not None:
        raise TypeError(f"render_mode: {render_mode!r} is not supported; only None")


def _first(info: Mapping[str, np.ndarray]) -> Info:
    """The info of the only world; numbers as Python's."""
    return {name: values[0].item() if values.ndim == 1 else values[0] for name, values in info.items()}


def _masked(infos: Mapping[str, np.ndarray], which: Bool[np.ndarray, " N"]) -> Info:
    """In Gymnasium's form: zeros for the worlds that do not have it, and "_key" for those that do; nothing if none."""
    if not which.any():
        return {}
    zeroed = {name: np.where(which.reshape(-1, *[1] * (v.ndim - 1)), v, 0.0) for name, v in infos.items()}
    return zeroed | {f"_{name}": which.copy() for name in infos}
