"""What an environment is: pure functions of (task, state, action) and the facts about their shapes."""

import math
from typing import Any, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from metacpo.envs.tasks import Task, TaskDistribution

CostKind = Literal["indicator", "graded"]


class ContractError(ValueError):
    """What an environment does against `Environment`'s contract; the message is one line with the remedy."""


class State(eqx.Module):
    """One world after a reset or a step. reward and cost belong to the step that led here (0 after a reset).

    world: whatever the family needs to go on, e.g. MuJoCo's state and where the objects are.

    An episode's end is three facts: terminated (the task is over: nothing to bootstrap), truncated (only
    the time is over: the value of `obs` is bootstrapped) and `obs` itself, which is never replaced by a reset.
    """

    world: PyTree[Array]
    obs: Float[Array, "*batch O"]
    reward: Float[Array, "*batch"]
    cost: Float[Array, "*batch m"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    steps: Int32[Array, "*batch"]


@runtime_checkable
class Environment(Protocol):
    """The contract between a family of tasks and everything that learns on it. Batched by vmap.

    It may state more facts. `action_bound: float`: actions beyond ±action_bound act as those at it. `cost_kind`:
    "indicator" where a step costs 0 or 1, by each name and in total (see `total_cost`). For check-env, `draws`: where
    its randomness comes from; `faults` and `notes`: (name, text) of what is wrong and what may be meant.

    Three more methods are optional, for pictures alone: `position(state)`, [*batch, 2] from above in metres, for path
    plots (see `position_of`); `scene(task, state)`, the shapes on the floor, and `bodies(task, state)`, what a camera
    shows (both in scene.py). Nothing that learns asks for them.
    """

    @property
    def observation_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    @property
    def episode_length(self) -> int:
        """Steps until truncation."""
        ...

    @property
    def cost_names(self) -> tuple[str, ...]: ...

    @property
    def tasks(self) -> TaskDistribution: ...

    def reset(self, task: Task, key: Key[Array, ""]) -> State: ...

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State: ...


@runtime_checkable
class OnEngines(Protocol):
    """An environment whose bodies another engine can move."""

    def with_physics(self, engine: Any) -> Environment: ...


@runtime_checkable
class OfCostKinds(Protocol):
    """An environment whose costs are graded, or indicators of being above 0."""

    def with_cost_kind(self, kind: CostKind) -> Environment: ...


MEMBERS = tuple(sorted(name for name in vars(Environment) if not name.startswith("_")))  # of the contract


def action_bound(env: Environment) -> float:
    """The largest size of an action's entries that makes a difference; infinite where the environment names none."""
    return getattr(env, "action_bound", math.inf)


def cost_kind(env: Environment) -> CostKind:
    """What the costs are: graded (any numbers) where the environment says nothing."""
    return getattr(env, "cost_kind", "graded")


def position_of(env: Environment, state: State) -> Float[Array, "*batch 2"]:
    """Where path plots draw the worlds: `position`, else the first two of the observation (0 where there is one)."""
    position = getattr(env, "position", None)
    if position is not None:
        return position(state)
    first = state.obs[..., :2]
    return jnp.pad(first, [(0, 0)] * (first.ndim - 1) + [(0, 2 - first.shape[-1])])
