"""Costs that the families share, and several costs as one."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.base import Environment, State, action_bound
from metacpo.envs.scene import Scene, scene_of
from metacpo.tasks import Task, TaskDistribution


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


class SummedCosts:
    """An environment whose costs are added up to one: the same worlds, one constraint instead of m."""

    def __init__(self, env: Environment):
        self.env = env

    @property
    def observation_size(self) -> int:
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        return self.env.action_size

    @property
    def action_bound(self) -> float:
        return action_bound(self.env)

    @property
    def episode_length(self) -> int:
        return self.env.episode_length

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

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return self.env.position(state)

    def scene(self, task: Task, state: State) -> Scene:
        return scene_of(self.env, task, state)


def _summed(state: State) -> State:
    return eqx.tree_at(lambda s: s.cost, state, jnp.sum(state.cost, axis=-1, keepdims=True))
