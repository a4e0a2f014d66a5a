"""Episodes to look at: every state of the same start before and after adaptation, and what is shown of each."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from metacpo.adaptation.outcomes import SplitResult
from metacpo.adaptation.paths import STAGES, at, on_host
from metacpo.envs.base import Environment, State, position_of
from metacpo.envs.scene import scene_of
from metacpo.envs.tasks import Task
from metacpo.estimation.measures import limited
from metacpo.rollout import rollout_with_states
from metacpo.shapes import Scene
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

RENDER = 0xF11F  # folded into the seed: the episodes shown are none that the adaptation learned from


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
        return at(self.states, step)

    def scene(self, env: Environment, step: int) -> Scene:
        return scene_of(env, self.task, self.at(step))


def record_all(setup: TrainingSetup, state: TrainState, result: SplitResult, seed: int) -> list[Episode]:
    """The episodes of the tasks that `result` draws, two a task: before and after adaptation, from the same start."""
    drawn = np.asarray(result.drawn)
    tasks, adapted = jax.tree.map(lambda x: x[drawn], (result.tasks, result.adaptation.phi))
    phi = jnp.stack([jnp.broadcast_to(state.theta, adapted.shape), adapted], axis=1)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), RENDER), len(drawn))
    with jax.default_matmul_precision("highest"):
        states, valid = _record(setup, state, phi, tasks, keys)
        positions = position_of(setup.env, states)
    recordings, tasks, positions = jax.tree.map(on_host, ((states, valid), tasks, positions))
    episodes = []
    for index, stage in np.ndindex(len(drawn), len(STAGES)):
        name = (result.split, result.drawn[index], STAGES[stage])
        recording = at(recordings, index, stage)
        episodes.append(_episode(setup, name, at(tasks, index), recording, positions[index, stage]))
    return episodes


@partial(jax.jit, static_argnames="setup")
def _record(
    setup: TrainingSetup, state: TrainState, phi: Float[Array, "D 2 n"], tasks: Task, keys: Key[Array, " D"]
) -> tuple[State, Bool[Array, "D 2 T"]]:
    """One episode of every policy: its states [D, 2, T + 1], and which steps belong to it (all up to its end)."""

    def one(policy_phi: Float[Array, " n"], task: Task, key: Key[Array, ""]) -> tuple[State, Bool[Array, " T"]]:
        data, states = rollout_with_states(setup.env, setup.policy, policy_phi, state.normaliser, task, key, 1)
        return jax.tree.map(lambda x: x[:, 0], (states, data.valid > 0))

    return jax.vmap(jax.vmap(one, in_axes=(0, None, None)))(phi, tasks, keys)


def _episode(
    setup: TrainingSetup,
    name: tuple[str, int, str],
    task: Task,
    recording: tuple[State, np.ndarray],
    position: np.ndarray,
) -> Episode:
    """What is shown of one episode, up to its end; recording: its states, and which steps belong to it."""
    states, valid = recording
    end = int(np.sum(valid)) + 1
    states = jax.tree.map(lambda x: x[:end], states)
    cost = np.asarray(states.cost, np.float64)
    unsafe = np.any(cost > 0, axis=-1)
    gamma = limited(setup.estimation.cost_measure, 1.0, setup.estimation.gamma)
    cost = cost * gamma ** np.maximum(np.arange(end) - 1, 0)[:, None]
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
