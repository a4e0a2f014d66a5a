"""Point-Circle: run counter-clockwise along a circle that two invisible walls cut.

Facts and numbers: Safety-Gymnasium 1.0.0's Circle task with the parameter ranges of Meta-CPO's task files.

    observation [28]  accelerometer 3 (m/s²), velocimeter 3 (m/s), gyro 3 (rad/s), magnetometer 3 (flux in the
                      robot's frame), 16-bin pseudo-lidar of the circle's centre (range 6 m)
    action [2]        forward force and turning speed, in [-1, 1] (clamped by the actuators)
    reward            0.1 · ((−u·y + v·x)/r) / (1 + |r − R|), position (x, y), velocity (u, v), r = |(x, y)|
    cost "walls"      1 for each step with |x| > d
    end               truncation after 500 steps of 0.02 s; never terminated
"""

import math
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.base import State
from metacpo.envs.lidar import pseudo_lidar, to_ego
from metacpo.envs.physics import MujocoC, PhysicsState
from metacpo.tasks import Parameter, Task, TaskDistribution

POINT = Path(__file__).parent / "assets" / "point.xml"
SUBSTEPS = 10
EPISODE_LENGTH = 500
START_EXTENT = 0.2  # m: starts are uniform in [-0.2, 0.2]²
LIDAR_RANGE = 6.0  # m
AGENT_SENSORS = 12  # observed sensor numbers; position 3, velocity 3 and heading 3 follow them in the MJCF


class PointCircle:
    """The family of Point-Circle tasks; params: radius R (m) and wall d (m). See the module's table."""

    observation_size = AGENT_SENSORS + 16
    action_size = 2
    episode_length = EPISODE_LENGTH
    cost_names = ("walls",)

    def __init__(self, threads: int | None = None):
        self.threads = threads

    @cached_property
    def physics(self) -> MujocoC:
        return MujocoC(POINT, SUBSTEPS, self.threads)

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "radius": Parameter(default=1.25, low=0.1, high=5.0, unit="m"),
                "wall": Parameter(default=0.938, low=0.05, high=10.0, unit="m"),
            },
            draw={
                "train": lambda key: _draw(key, radius=(1.0, 1.5), ratio=(0.55, 0.75)),
                "shifted": lambda key: _draw(key, radius=(2.0, 2.5), ratio=(0.55, 0.65)),
            },
            cost_limit=(25.0,),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """Start at rest, uniform in [-0.2, 0.2]² with uniform heading."""
        place, turn = jax.random.split(key)
        xy = jax.random.uniform(place, (2,), minval=-START_EXTENT, maxval=START_EXTENT)
        heading = jax.random.uniform(turn, (1,), maxval=2 * math.pi)
        qpos = jnp.concatenate([xy, heading])
        return self._state(task, self.physics.reset(qpos, jnp.zeros(3)), jnp.int32(0), moved=False)

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of 0.02 s."""
        return self._state(task, self.physics.step(state.world, action), state.steps + 1, moved=True)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return state.world.sensors[..., AGENT_SENSORS : AGENT_SENSORS + 2]

    def _state(self, task: Task, physics: PhysicsState, steps: Array, moved: bool) -> State:
        sensors = physics.sensors
        agent, place = sensors[:AGENT_SENSORS], sensors[AGENT_SENSORS:]
        position, velocity, heading = place[0:2], place[3:5], place[6:8]
        centre = to_ego(-position[None], heading)
        obs = jnp.concatenate([agent, pseudo_lidar(centre, LIDAR_RANGE)])
        return State(
            world=physics,
            obs=obs,
            reward=circle_reward(position, velocity, task.params["radius"]) if moved else jnp.float32(0),
            cost=wall_cost(position, task.params["wall"])[None] if moved else jnp.zeros(1),
            terminated=jnp.bool_(False),
            truncated=steps >= EPISODE_LENGTH,
            steps=steps,
        )


def circle_reward(
    position: Float[Array, " 2"], velocity: Float[Array, " 2"], radius: Float[Array, ""]
) -> Float[Array, ""]:
    """0.1 · ((−u·y + v·x)/r) / (1 + |r − R|): tangential speed (m/s), worth less off the circle; 0 at r = 0."""
    (x, y), (u, v) = position, velocity
    r = jnp.sqrt(x**2 + y**2)
    tangential = (-u * y + v * x) / jnp.where(r > 0, r, 1.0)
    return 0.1 * tangential / (1.0 + jnp.abs(r - radius))


def wall_cost(position: Float[Array, " 2"], wall: Float[Array, ""]) -> Float[Array, ""]:
    """1 outside the walls at x = ±d, else 0."""
    return (jnp.abs(position[0]) > wall).astype(jnp.float32)


def _draw(key: Key[Array, ""], radius: tuple[float, float], ratio: tuple[float, float]) -> dict[str, Float[Array, ""]]:
    """R uniform in `radius`, d = u·R with u uniform in `ratio`, rounded to the millimetre as upstream does."""
    first, second = jax.random.split(key)
    R = jax.random.uniform(first, (), minval=radius[0], maxval=radius[1])
    u = jax.random.uniform(second, (), minval=ratio[0], maxval=ratio[1])
    return {"radius": R, "wall": jnp.round(u * R, 3)}
