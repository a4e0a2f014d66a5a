"""Costs that the families share, and several costs as one."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.base import State
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


class SummedCosts(Wrapped):
    """An environment whose costs are added up to one: the same worlds, one constraint instead of m."""

    @property
    def cost_names(self) -> tuple[str, ...]:
        """One name made of those of the parts: ("walls+hazards",)."""
        return ("+".join(self.env.cost_names),)

    @property
    def tasks(self) -> TaskDistribution:
        tasks = self.env.tasks
        return tasks.with_cost_limit((tasks.cost_limit[0],))

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        return _summed(self.env.reset(task, key))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        return _summed(self.env.step(task, state, action))


def _summed(state: State) -> State:
    return eqx.tree_at(lambda s: s.cost, state, jnp.sum(state.cost, axis=-1, keepdims=True))
