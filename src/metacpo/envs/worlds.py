"""Several worlds of an environment with a task each, stepped by the host: episodes that may begin at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import Array, Bool, Float32, Float64, Key, PyTree, UInt32

from metacpo.envs.base import Environment, State
from metacpo.envs.costs import total_cost
from metacpo.envs.tasks import Task, TaskDistribution, TaskError
from metacpo.runtime.numeric import not_single

CostLimit = float | int | Sequence[float | int] | None


class VectorState:
    """`count` worlds of an environment with the task of each, and what Gymnasium wants to know of them, in NumPy."""

    def __init__(
        self,
        env: Environment,
        count: int,
        task: Mapping[str, object] | None,
        split: str | None,
        cost_limit: CostLimit,
    ):
        if task is not None and split is not None:
            raise TaskError("task, split: give one; a task stays, a split draws another one at every reset")
        if split is not None:  # traced, not computed: it refuses an unknown split now and not at the first reset
            jax.eval_shape(lambda key: env.tasks.sample(key, split), jax.random.key(0))
        if "limit" in env.cost_names:
            raise ValueError("cost_names: 'limit' would share its place in the info with the limit")
        self.env = env
        self.split = split
        self.cost_limit = _limit(cost_limit, env.cost_names)
        self.tasks = _stacked(_task(env.tasks, task or {}), count)
        self._state: State | None = None

    @property
    def state(self) -> State:
        if self._state is None:
            raise ResetNeeded("reset every world before anything else")
        return self._state

    def set_task(self, options: dict[str, Any] | None, which: Bool[np.ndarray, " N"]) -> None:
        """The task in `options`, if there is one, for the worlds `which`."""
        for name in options or {}:
            if name != "task":
                raise TaskError(f"options: unknown key {name!r}; allowed: task")
        if options and self.split is not None:
            raise TaskError(f"options.task: this environment draws a task of split {self.split!r} at every reset")
        if options:
            task = _stacked(_task(self.env.tasks, options["task"]), len(which))
            self.tasks = _choose(which, task, self.tasks)

    def reset(self, words: UInt32[np.ndarray, "N 2"], which: Bool[np.ndarray, " N"]) -> None:
        """New episodes in the worlds `which`, from 64 random bits each."""
        new = _reset(self.env, self.split, self.tasks, words)
        self.tasks, self._state = new if which.all() else _choose(which, new, (self.tasks, self.state))

    def step(self, actions: np.ndarray) -> None:
        wanted = (self.state.obs.shape[0], self.env.action_size)
        if actions.shape != wanted:  # a wrong one might broadcast
            raise ValueError(f"actions: shape {actions.shape}, wanted {wanted} (worlds, numbers of an action)")
        self._state = _step(self.env, self.tasks, self.state, actions.astype(np.float32))

    def observe(self) -> Float32[np.ndarray, "N O"]:
        return np.array(self.state.obs, np.float32)

    def reward(self) -> Float64[np.ndarray, " N"]:
        return np.array(self.state.reward, np.float64)

    def ends(self) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """(terminated, truncated)."""
        return np.array(self.state.terminated), np.array(self.state.truncated)

    def costs(self) -> dict[str, np.ndarray]:
        """The last step's costs [N], their total first."""
        costs = np.array(self.state.cost, np.float64)
        named = {f"cost_{name}": costs[:, j].copy() for j, name in enumerate(self.env.cost_names)}
        return {"cost": np.asarray(total_cost(self.env, costs))} | named

    def limits(self) -> dict[str, np.ndarray]:
        """What an episode's costs should stay below: [N], or [N, m] where each cost has its own."""
        if self.cost_limit is None:
            return {"cost_limit": np.array(self.tasks.cost_limit[:, 0], np.float64)}
        return {"cost_limit": np.array([self.cost_limit] * len(self.tasks.cost_limit), np.float64)}


@partial(jax.jit, static_argnums=(0, 1))
def _reset(env: Environment, split: str | None, tasks: Task, words: UInt32[Array, "N 2"]) -> tuple[Task, State]:
    def one(task: Task, word: UInt32[Array, " 2"]) -> tuple[Task, State]:
        draw, start = jax.random.split(episode_key(word))
        task = task if split is None else env.tasks.sample(draw, split)
        return task, env.reset(task, start)

    return jax.vmap(one)(tasks, words)


@partial(jax.jit, static_argnums=0)
def _step(env: Environment, tasks: Task, state: State, actions: Float32[Array, "N A"]) -> State:
    return jax.vmap(env.step)(tasks, state, actions)


@jax.jit
def _choose(which: Bool[Array, " N"], new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    """`new` for the worlds `which`, `old` for the others."""
    return jax.tree.map(lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def episode_key(word: UInt32[Array, " 2"]) -> Key[Array, ""]:
    """The key of an episode, of which one half draws the task and the other starts the world."""
    return jax.random.fold_in(jax.random.key(word[0]), word[1])


def random_words(generator: np.random.Generator) -> UInt32[np.ndarray, " 2"]:
    return generator.integers(2**32, size=2, dtype=np.uint32)


def _task(tasks: TaskDistribution, params: object) -> Task:
    if not isinstance(params, Mapping):
        raise TaskError(f"task: {params!r} is not a dict of parameters")
    # The reference task is known to find room; in two families the check compiles for more than a second.
    return (tasks if params else replace(tasks, check=None)).make(params)


def _stacked(task: Task, count: int) -> Task:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), task)


def _limit(cost_limit: CostLimit, names: tuple[str, ...]) -> CostLimit:
    limits = list(cost_limit) if isinstance(cost_limit, Sequence) else [0.0 if cost_limit is None else cost_limit]
    if isinstance(cost_limit, Sequence) and len(limits) != len(names):
        wanted = f"one for the sum, or {len(names)} ({', '.join(names)})"
        raise TaskError(f"cost_limit: {limits!r} has {len(limits)} numbers; wanted: {wanted}")
    for limit in limits:
        if not 0 <= limit < float("inf"):
            raise TaskError(f"cost_limit: {limit!r} is not in [0, inf)")
        if wrong := not_single(limit, "[0, inf)"):
            raise TaskError(f"cost_limit: {limit!r} {wrong}")
    return cost_limit
