"""Episodes to look at: every state of the same start before and after adaptation, and what is shown of each."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from metacpo.adaptation.outcomes import SplitResult
from metacpo.envs.base import Environment, State, position_of
from metacpo.envs.scene import Scene, scene_of
from metacpo.envs.tasks import Task
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

STAGES = ("before", "after")
RENDER = 0xF11F  # folded into the seed: the episodes shown are none that the adaptation learned from


class Recording(eqx.Module):
    """One episode whole: its T + 1 states, and which of the T steps belong to it (all up to its end)."""

    states: State  # leading axes [*M T+1]
    valid: Bool[Array, "*M T"]


@dataclass(frozen=True)
class Episode:
    """One episode on the host, cut at its end after T steps: NumPy arrays, no batch axis.

    cost [T + 1, m] is what the limit limits so far, and `total` [T + 1] the return so far; both begin at 0.
    """

    split: str
    number: int
    stage: str
    task: Task
    states: State  # leading axis [T + 1]
    position: np.ndarray  # [T + 1, 2] metres
    unsafe: np.ndarray  # [T + 1] whether the step that led here had cost
    total: np.ndarray
    cost: np.ndarray
    limit: np.ndarray  # [m]

    @property
    def steps(self) -> int:
        return len(self.total) - 1

    def at(self, step: int) -> State:
        """The state after `step` steps."""
        return _part(self.states, step)

    def scene(self, env: Environment, step: int) -> Scene:
        return scene_of(env, self.task, self.at(step))


def record_all(setup: TrainingSetup, state: TrainState, result: SplitResult, seed: int) -> list[Episode]:
    """The episodes of the tasks that `result` draws, two a task: before and after adaptation, from the same start."""
    drawn = np.asarray(result.drawn)
    tasks, adapted = jax.tree.map(lambda x: x[drawn], (result.tasks, result.adaptation.phi))
    phi = jnp.stack([jnp.broadcast_to(state.theta, adapted.shape), adapted], axis=1)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), RENDER), len(drawn))
    with jax.default_matmul_precision("highest"):
        recordings = _record(setup, state, phi, tasks, keys)
        positions = position_of(setup.env, recordings.states)
    recordings, tasks, positions = jax.tree.map(_on_host, (recordings, tasks, positions))
    episodes = []
    for index, number in enumerate(result.drawn):
        for stage, name in enumerate(STAGES):
            recording, task = _part(recordings, index, stage), _part(tasks, index)
            episodes.append(_episode(setup, (result.split, number, name), task, recording, positions[index, stage]))
    return episodes


def _part(tree: Any, *place: int) -> Any:
    """What a tree of arrays has at one place of their leading axes."""
    return jax.tree.map(lambda x: x[place], tree)


@partial(jax.jit, static_argnames="setup")
def _record(
    setup: TrainingSetup, state: TrainState, phi: Float[Array, "D 2 n"], tasks: Task, keys: Key[Array, " D"]
) -> Recording:
    one = partial(record, setup, state)
    return jax.vmap(jax.vmap(one, in_axes=(0, None, None)))(phi, tasks, keys)


def record(
    setup: TrainingSetup, state: TrainState, phi: Float[Array, " n"], task: Task, key: Key[Array, ""]
) -> Recording:
    """What `rollout` does for one episode with the same key, but every state is kept."""
    env, policy = setup.env, setup.policy
    reset_key, action_key = jax.random.split(key)
    start = env.reset(task, jax.random.split(reset_key, 1)[0])
    noise = jax.random.normal(action_key, (env.episode_length, 1, env.action_size), jnp.float32)

    def step(carry: tuple[State, Array], eps: Float[Array, "1 A"]):
        before, alive = carry
        pi = policy(phi, state.normaliser(before.obs[None]))
        action = pi.sample(eps)[0]
        after = env.step(task, before, action)
        numbers = jnp.concatenate([after.obs, after.cost, after.reward[None]])
        valid = alive & jnp.all(jnp.isfinite(numbers))
        kept = jax.tree.map(lambda new, old: jnp.where(valid, new, old), after, before)
        return (kept, valid & ~after.terminated & ~after.truncated), (kept, valid)

    _, (after, valid) = jax.lax.scan(step, (start, jnp.bool_(True)), noise)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after)
    return Recording(states, valid)


def _on_host(x: Array) -> np.ndarray | Array:
    """NumPy arrays; keys of random numbers have no such form and stay."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _episode(
    setup: TrainingSetup, name: tuple[str, int, str], task: Task, recording: Recording, position: np.ndarray
) -> Episode:
    end = int(np.sum(recording.valid)) + 1
    states = jax.tree.map(lambda x: x[:end], recording.states)
    cost = np.asarray(states.cost, np.float64)
    unsafe = np.any(cost > 0, axis=-1)
    if setup.estimation.cost_measure == "discounted":
        cost = cost * setup.estimation.gamma ** np.maximum(np.arange(end) - 1, 0)[:, None]
    return Episode(
        *name,
        task=task,
        states=states,
        position=position[:end].astype(np.float64),
        unsafe=unsafe,
        total=np.cumsum(np.asarray(states.reward, np.float64)),
        cost=np.cumsum(cost, axis=0),
        limit=np.asarray(task.cost_limit),
    )
