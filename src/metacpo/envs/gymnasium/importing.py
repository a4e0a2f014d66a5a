"""Gymnasium environments as metacpo environments: for every task one, all worlds of a batch in one host call."""

import math
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, UInt32

from metacpo.envs.base import State
from metacpo.envs.declared import cost_name_faults, length_faults
from metacpo.envs.gymnasium.facts import Facts, GymnasiumError, Position, examine
from metacpo.envs.gymnasium.host import Answers, Host
from metacpo.envs.gymnasium.host_call import host_call
from metacpo.envs.gymnasium.pool import Make, Pool
from metacpo.envs.tasks import Task, TaskDistribution


class World(eqx.Module):
    """Which episode a state belongs to: its number on the host (another in every run), and the seed it began with.

    place: two numbers for path plots, metres where the environment has them.
    """

    ticket: Int32[Array, "*batch"]
    seed: UInt32[Array, "*batch"]
    place: Float[Array, "*batch 2"]


class GymnasiumEnvironment:
    """What `from_gymnasium` returns. Static under jit by identity: make it once.

    draws, notes: for check-env, where the environment's randomness comes from, and what it should say of it.
    """

    draws = "self.np_random, which super().reset(seed=seed) seeds,"

    def __init__(self, facts: Facts, host: Host, tasks: TaskDistribution):
        self.observation_size = facts.observation_size
        self.action_size = facts.action_size
        self.episode_length = facts.episode_length
        self.cost_names = facts.cost_names
        self.action_bound = 1.0 if facts.bounded.all() else math.inf
        self.notes = tuple(_notes(facts))
        self.tasks = tasks
        self._host = host

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """`env.reset(seed=...)` of an environment of this task. The key is the seed: same key, same episode."""
        seed = jax.random.bits(key, (), jnp.uint32) >> 1  # some environments keep it in an int32
        return self._state(seed, self._call(self._host.reset, self._start(task, seed)))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        """`env.step` under the action: -1 is the low bound of its Box, 1 the high one (`Facts.action`)."""
        seed = state.world.seed
        where = jnp.stack([state.world.ticket, state.steps])
        return self._state(seed, self._call(self._host.step, self._start(task, seed), where, action))

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return state.world.place

    def _start(self, task: Task, seed: UInt32[Array, ""]) -> UInt32[Array, " words"]:
        """Seed and parameters as bits: what an episode begins with."""
        params = [jnp.asarray(task.params[name], jnp.float32) for name in self.tasks.parameters]
        bits = [jax.lax.bitcast_convert_type(value, jnp.uint32) for value in params]
        return jnp.stack([seed, *bits])

    def _call(self, host: Callable[..., Answers], *inputs: Array) -> tuple[Array, Array, Array]:
        shapes = (
            jax.ShapeDtypeStruct((2,), jnp.int32),
            jax.ShapeDtypeStruct((self._host.numbers,), jnp.float32),
            jax.ShapeDtypeStruct((2,), jnp.bool_),
        )
        where, numbers, ended = host_call(host, shapes, *inputs)
        return where, numbers, ended

    def _state(self, seed: UInt32[Array, ""], answer: tuple[Array, Array, Array]) -> State:
        where, numbers, ended = answer
        size = self.observation_size
        return State(
            world=World(where[0], seed, numbers[size : size + 2]),
            obs=numbers[:size],
            reward=numbers[size + 2],
            cost=numbers[size + 3 :],
            terminated=ended[0],
            truncated=ended[1],
            steps=where[1],
        )


def from_gymnasium(
    make: Make,
    tasks: TaskDistribution,
    episode_length: int | None = None,
    cost_names: tuple[str, ...] = ("cost",),
    position: Position | None = None,
) -> GymnasiumEnvironment:
    """Any Gymnasium environment that says what a step costs, as a family of tasks to meta-train on (CPU).

    make: the environment of one task, from its parameters as Python floats. One that has `set_task(params)` is told
        its next task; another one is built anew for every task.
    cost_names: entries of `info` after a step, one constraint each. Safety-Gymnasium's 6-tuple gives one cost itself.
    episode_length: steps until truncation; the environment's own time limit if None. It may end earlier.
    position: two numbers of an environment (m) for path plots; the first two of the observation if None.

    An entry of the action with two finite bounds is mapped to them from the policy's [-1, 1]; another one is taken as
    it is. One environment, that of the reference task, is built and stepped once here: GymnasiumError names what is
    missing, TaskError what is wrong with the reference task.
    """
    faults = [*cost_name_faults(cost_names), *(() if episode_length is None else length_faults(episode_length))]
    if faults:
        raise GymnasiumError(faults[0].text)
    if len(tasks.cost_limit) != len(cost_names):
        limits, costs = len(tasks.cost_limit), len(cost_names)
        raise GymnasiumError(
            f"tasks: cost_limit has {limits} numbers, cost_names {costs}; give one limit for each cost"
        )
    pool = Pool(make, tuple(tasks.parameters))
    params = tasks.make({}).params
    reference = np.array([params[name] for name in tasks.parameters], np.float32).tobytes()
    env = pool.take(reference)
    facts = examine(env, episode_length, cost_names, position)
    pool.give(reference, env)
    return GymnasiumEnvironment(facts, Host(facts, pool), tasks)


def _notes(facts: Facts) -> Iterator[tuple[str, str]]:
    """What may be meant, (name, text)."""
    free = np.flatnonzero(~facts.bounded).tolist()
    if free:
        text = f"entries {free} of the {facts.action_size} of an action have no two finite bounds"
        yield "unbounded-actions", f"{text}: they are taken as the policy draws them, initial_std about 0 at first"
