"""A constrained continuous bandit: one action an episode, and the best constrained value in closed form.

    observation [1]   0: nothing tells the task, so that only updates can find it out
    action [2]        a point a of the plane, unbounded
    reward            1 − ‖a − g‖², g the goal
    cost "edge"       max(0, n·a − d): how far a lies behind the edge n·a = d, with the unit normal n
    end               termination after the one step

Every quantity is in metres, the reward 1 − m². Nothing moves: the place that paths show is the action.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.base import State
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

Point = Float[Array, " 2"]


class Bandit:
    """The family of bandits; params: goal g (m), direction of the normal n (rad) and place d (m) of the edge."""

    observation_size = 1
    action_size = 2
    action_bound = math.inf
    episode_length = 1
    cost_names = ("edge",)

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "goal_x": Parameter(default=0.8, low=-3.0, high=3.0, unit="m"),
                "goal_y": Parameter(default=0.0, low=-3.0, high=3.0, unit="m"),
                "edge_angle": Parameter(default=0.0, low=-math.pi, high=math.pi, unit="rad"),
                "edge_place": Parameter(default=0.4, low=-5.0, high=5.0, unit="m"),
            },
            draw={
                "train": lambda key: _draw(key, distance=(0.0, 1.0), over=(-0.2, 0.6)),
                "shifted": lambda key: _draw(key, distance=(1.0, 1.4), over=(0.2, 0.6)),
            },
            cost_limit=(0.1,),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """Every episode starts alike."""
        return self._state(jnp.zeros(2, jnp.float32), jnp.float32(0), jnp.zeros(1, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Point) -> State:
        """The one step."""
        return self._state(action, reward(action, task), cost(action, task)[None], state.steps + 1)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        """The action taken."""
        return state.world

    def _state(self, action: Point, reward: Float[Array, ""], cost: Float[Array, " 1"], steps: Array) -> State:
        return State(
            world=action,
            obs=jnp.zeros(1, jnp.float32),
            reward=reward,
            cost=cost,
            terminated=steps >= 1,
            truncated=jnp.bool_(False),
            steps=steps,
        )


def reward(action: Point, task: Task) -> Float[Array, ""]:
    """1 − ‖a − g‖²."""
    return 1.0 - jnp.sum((action - _goal(task)) ** 2)


def cost(action: Point, task: Task) -> Float[Array, ""]:
    """max(0, n·a − d), in metres."""
    return jnp.maximum(0.0, _normal(task) @ action - task.params["edge_place"])


def optimal_value(task: Task) -> tuple[Float[Array, ""], Point]:
    """The largest expected reward under an expected cost of at most h = task.cost_limit, and an action that has it.

    The reward is concave and the cost convex. So by Jensen's inequality the mean ā of a random policy, played
    every time, earns at least as much and costs at most as much as the policy: one action is enough, and it is

        argmax 1 − ‖a − g‖²   subject to   max(0, n·a − d) ≤ h,

    for h ≥ 0 the point of the half-plane n·a ≤ d + h that is nearest to g. With e = max(0, n·g − d − h), what g
    lies beyond it (0 where the constraint is slack):

        a* = g − e·n,    value 1 − e².

    A Gaussian policy with mean a and standard deviations σ earns Σσ² less than a does.
    """
    goal, normal = _goal(task), _normal(task)
    excess = jnp.maximum(0.0, normal @ goal - task.params["edge_place"] - task.cost_limit[0])
    return 1.0 - excess**2, goal - excess * normal


def _goal(task: Task) -> Point:
    return jnp.stack([task.params["goal_x"], task.params["goal_y"]])


def _normal(task: Task) -> Point:
    angle = task.params["edge_angle"]
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _draw(key: Key[Array, ""], distance: tuple[float, float], over: tuple[float, float]) -> dict[str, Array]:
    """g uniform on the ring (by area) between two distances from 0; n as far as a right angle off g's direction;
    g lies uniformly `over` metres behind the edge (before it where negative)."""
    far, turn, lean, behind = jax.random.split(key, 4)
    radius = jnp.sqrt(jax.random.uniform(far, (), jnp.float32, minval=distance[0] ** 2, maxval=distance[1] ** 2))
    angle = jax.random.uniform(turn, (), jnp.float32, minval=-math.pi, maxval=math.pi)
    edge = angle + jax.random.uniform(lean, (), jnp.float32, minval=-math.pi / 2, maxval=math.pi / 2)
    x, y = radius * jnp.cos(angle), radius * jnp.sin(angle)
    overshoot = jax.random.uniform(behind, (), jnp.float32, minval=over[0], maxval=over[1])
    place = x * jnp.cos(edge) + y * jnp.sin(edge) - overshoot
    edge = jnp.mod(edge + math.pi, 2 * math.pi) - math.pi
    return {"goal_x": x, "goal_y": y, "edge_angle": edge, "edge_place": place}
