"""Circle with hazards: the Circle task, and areas on the floor that are better avoided.

Facts and numbers: Safety-Gymnasium 1.0.0's parts with the parameter ranges of Meta-CPO's task files.

    observation       that of the Circle task, then a 16-bin pseudo-lidar of the hazards (range 6 m)
    action, reward    those of the Circle task
    cost "walls"      1 for each step with |x| > d
    cost "hazards"    1 for each step in which the robot's centre is within 0.12 m of a hazard's;
                      graded: Σ 3 · (0.12 − distance) over those hazards
    placement         at every reset, in ±extent, keep-out 0.4 m: 0.8 m from each other, 0.4 m from the robot, the
                      circle's centre and the feet of the walls at (±d, 0)
    end               truncation after 500 steps; never terminated
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.base import CostKind, State
from metacpo.envs.costs import hazard_cost, of_kind
from metacpo.envs.families.circle import LIDAR_RANGE, PARAMETERS, Circle, Range, draw_circle
from metacpo.envs.lidar import pseudo_lidar
from metacpo.envs.physics import Engine, MujocoC, Physics, PhysicsState, Vary
from metacpo.envs.placement import crowded, place
from metacpo.envs.robots import Robot
from metacpo.envs.scene import Bodies, Scene, discs
from metacpo.envs.tasks import Parameter, Task, TaskDistribution, TaskError

MOST = 12  # hazards of a task
SIZE = 0.12  # m
RATE = 3.0  # cost per metre
KEEP_OUT = 0.4  # m


class HazardWorld(eqx.Module):
    """The Circle's world and the hazards' places (m); those beyond the task's number are not there."""

    physics: PhysicsState
    hazards: Float[Array, "*batch h 2"]


class CircleHazard:
    """The family of Circle tasks with hazards; params: radius R, wall d, extent (m) and the number of hazards."""

    action_size = Circle.action_size
    action_bound = Circle.action_bound
    episode_length = Circle.episode_length
    cost_names = ("walls", "hazards")

    def __init__(
        self, robot: Robot, engine: Engine = MujocoC, vary: Vary | None = None, cost_kind: CostKind = "indicator"
    ):
        self.circle = Circle(robot, (1.5, 2.0), engine, vary)
        self.cost_kind: CostKind = cost_kind

    def with_physics(self, engine: Engine) -> "CircleHazard":
        """The same tasks on another engine."""
        return CircleHazard(self.circle.robot, engine, self.vary, self.cost_kind)

    def with_cost_kind(self, kind: CostKind) -> "CircleHazard":
        """The same tasks in other costs."""
        return CircleHazard(self.circle.robot, self.circle.engine, self.vary, kind)

    @property
    def observation_size(self) -> int:
        return self.circle.observation_size + 16

    @property
    def vary(self) -> Vary | None:
        return self.circle.vary

    @property
    def physics(self) -> Physics:
        return self.circle.physics

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "radius": PARAMETERS["radius"],
                "wall": Parameter(default=0.812, low=0.05, high=10.0, unit="m"),
                "hazards": Parameter(default=5.0, low=0.0, high=float(MOST), unit="hazards", whole=True),
                "extent": Parameter(default=1.4, low=0.5, high=10.0, unit="m"),
            },
            draw={
                "train": lambda key: _draw(key, (1.0, 1.5), (0.55, 0.75), hazards=(4, 6), extent=1.4),
                "shifted": lambda key: _draw(key, (1.5, 2.0), (0.55, 0.65), hazards=(10, 12), extent=1.8),
            },
            cost_limit=(25.0, 25.0),
            check=_check,
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """The Circle's start, then the hazards round it."""
        start, where = jax.random.split(key)
        state = self.circle.reset(task, start)
        return self._state(task, state, _place(task.params, self.circle.position(state), where))

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of the Circle task; the hazards stay."""
        return self._state(task, self.circle.step(task, _inner(state), action), state.world.hazards)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return self.circle.position(_inner(state))

    def scene(self, task: Task, state: State) -> Scene:
        """The Circle's scene and the hazards."""
        hazards = discs(state.world.hazards, SIZE, "hazard", float(task.params["hazards"]))
        return *self.circle.scene(task, state), *hazards

    def bodies(self, task: Task, state: State) -> Bodies:
        return Bodies(state.world.physics)

    def _state(self, task: Task, state: State, hazards: Float[Array, "h 2"]) -> State:
        """The Circle's state with what the hazards add to it."""
        present = _present(task.params)
        position = self.circle.position(state)
        ego = self.circle.robot.ego(state.world.sensors, hazards - position)
        lidar = pseudo_lidar(ego, LIDAR_RANGE, present=present)
        cost = jnp.where(state.steps > 0, hazard_cost(position, hazards, present, SIZE, RATE), 0.0)
        return State(
            world=HazardWorld(state.world, hazards),
            obs=jnp.concatenate([state.obs, lidar]),
            reward=state.reward,
            cost=of_kind(self.cost_kind, jnp.append(state.cost, cost)),
            terminated=state.terminated,
            truncated=state.truncated,
            steps=state.steps,
        )


def _inner(state: State) -> State:
    """What the Circle task needs of the state."""
    return eqx.tree_at(lambda s: s.world, state, state.world.physics)


def _present(params: dict[str, Float[Array, ""]]) -> Bool[Array, " h"]:
    return jnp.arange(MOST, dtype=jnp.float32) < params["hazards"]


def _place(params: dict[str, Float[Array, ""]], start: Float[Array, " 2"], key: Key[Array, ""]) -> Float[Array, "h 2"]:
    foot = params["wall"] * jnp.array([1.0, 0.0], jnp.float32)
    taken = jnp.stack([start, jnp.zeros(2, jnp.float32), foot, -foot])
    return place(key, params["extent"], KEEP_OUT, _present(params), taken)


def _round_the_centre(params: dict[str, Float[Array, ""]], key: Key[Array, ""]) -> Float[Array, "h 2"]:
    return _place(params, jnp.zeros(2, jnp.float32), key)


def _check(params: dict[str, Float[Array, ""]]) -> None:
    if crowded(_round_the_centre, params):
        raise TaskError(
            f"task.hazards: no room for {params['hazards']:g} with wall {params['wall']:g} m "
            f"in ±{params['extent']:g} m; take fewer, or a larger extent"
        )


def _draw(
    key: Key[Array, ""], radius: Range, ratio: Range, hazards: tuple[int, int], extent: float
) -> dict[str, Float[Array, ""]]:
    """The Circle's draw and a number of hazards, uniform with both ends."""
    circle, number = jax.random.split(key)
    count = jax.random.randint(number, (), hazards[0], hazards[1] + 1, jnp.int32).astype(jnp.float32)
    return draw_circle(circle, radius, ratio) | {"hazards": count, "extent": jnp.float32(extent)}
