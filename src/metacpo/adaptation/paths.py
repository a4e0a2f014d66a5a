"""Paths to draw: the same starts under the meta-policy and under the adapted one, seen from above."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.scene import Scene, scene_of
from metacpo.envs.tasks import Task
from metacpo.envs.wrapped import has_position
from metacpo.rollout import rollout_with_states
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

STAGES = ("before", "after")  # adaptation
EPISODES = 2  # of each task and stage


@dataclass(frozen=True)
class Paths:
    """E episodes of D tasks, before and after adaptation, on the host."""

    position: Float[np.ndarray, "D 2 T E 2"]  # m, after each step
    unsafe: Bool[np.ndarray, "D 2 T E"]  # whether the step had cost
    valid: Bool[np.ndarray, "D 2 T E"]  # whether the step belongs to the episode: all up to its end
    scenes: tuple[tuple[Scene, ...], ...]  # [D][E] what is on the floor at each start, which both stages share


def record_paths(
    setup: TrainingSetup, state: TrainState, tasks: Task, phi: Float[Array, "D n"], key: Key[Array, ""]
) -> Paths | None:
    """Paths of D tasks with their adapted policies; None where the environment has no `position`."""
    if not has_position(setup.env):
        return None
    position, unsafe, valid, starts = _record(setup, state, tasks, phi, key)
    tasks, starts = jax.tree.map(on_host, (tasks, starts))
    scenes = tuple(
        tuple(scene_of(setup.env, at(tasks, task), at(starts, task, episode)) for episode in range(EPISODES))
        for task in range(phi.shape[0])
    )
    return Paths(np.asarray(position), np.asarray(unsafe), np.asarray(valid), scenes)


@partial(jax.jit, static_argnames="setup")
def _record(setup: TrainingSetup, state: TrainState, tasks: Task, phi: Float[Array, "D n"], key: Key[Array, ""]) -> Any:
    """Positions, where they are unsafe, which are valid ([D, 2, T, E]), and the states [D, E] before the first step."""

    def path(policy_phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        data, states = rollout_with_states(setup.env, setup.policy, policy_phi, state.normaliser, task, key, EPISODES)
        start = jax.tree.map(lambda x: x[0], states)
        return data.position, jnp.any(data.cost > 0, axis=-1), data.valid > 0, start

    both = jnp.stack([jnp.broadcast_to(state.theta, phi.shape), phi], axis=1)
    keys = jax.random.split(key, phi.shape[0])
    *paths, starts = jax.vmap(jax.vmap(path, in_axes=(0, None, None)))(both, tasks, keys)
    return *paths, jax.tree.map(lambda x: x[:, 0], starts)


def at(tree: Any, *place: int) -> Any:
    """What a tree of arrays has at one place of their leading axes."""
    return jax.tree.map(lambda x: x[place], tree)


def on_host(x: Array) -> np.ndarray | Array:
    """NumPy arrays; keys of random numbers have no such form and stay."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)
