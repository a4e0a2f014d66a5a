"""Costs that the families share, graded or as indicators, and several costs as one."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.base import CostKind, Environment, State, cost_kind
from metacpo.envs.tasks import Task, TaskDistribution
from metacpo.envs.wrapped import Wrapped


def wall_cost(position: Float[Array, " 2"], wall: Float[Array, ""]) -> Float[Array, ""]:
    """1 outside the walls at x = ±d, else 0."""
    return (jnp.abs(position[0]) > wall).astype(jnp.float32)


def hazard_cost(
    position: Float[Array, " 2"], hazards: Float[Array, "h 2"], present: Bool[Array, " h"], radius: float, rate: float
) -> Float[Array, ""]:
    """Σ rate · (radius − distance) over the hazards that the robot's centre is in; distances in metres."""
    distance = jnp.sqrt(jnp.sum((hazards - position) ** 2, axis=-1))
    inside = present & (distance <= radius)
    return jnp.sum(jnp.where(inside, rate * (radius - distance), 0.0))


def of_kind(kind: CostKind, cost: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
    """Graded costs as they are; as indicators, 1 where one is above 0. What is NaN stays NaN."""
    return cost if kind == "graded" else jnp.where(cost > 0, 1.0, cost)


def total_cost(env: Environment, cost: Float[Array | np.ndarray, "*batch m"]) -> Float[Array | np.ndarray, "*batch"]:
    """What a step costs in all: the sum; of indicators 1 where any is 1, as upstream has it.

    A step outside of the walls and in a hazard is one unsafe step.
    """
    total = cost.sum(axis=-1)
    return total.clip(max=1) if cost_kind(env) == "indicator" else total


class SummedCosts(Wrapped):
    """An environment with its costs as one, `total_cost`: the same worlds, one constraint instead of m."""

    @property
    def cost_names(self) -> tuple[str, ...]:
        """One name made of those of the parts: ("walls+hazards",)."""
        return ("+".join(self.env.cost_names),)

    @property
    def tasks(self) -> TaskDistribution:
        tasks = self.env.tasks
        return tasks.with_cost_limit((tasks.cost_limit[0],))

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        return self._summed(self.env.reset(task, key))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        return self._summed(self.env.step(task, state, action))

    def _summed(self, state: State) -> State:
        return eqx.tree_at(lambda s: s.cost, state, total_cost(self.env, state.cost)[..., None])
