"""Circle: run counter-clockwise along a circle that two invisible walls cut, as a Point or as a Car.

Facts and numbers: Safety-Gymnasium 1.0.0's Circle task with the parameter ranges of Meta-CPO's task files.

    observation       what the robot observes of itself (robots.py; Point 12, Car 24 numbers),
                      16-bin pseudo-lidar of the circle's centre (range 6 m)
    action [2]        the robot's, in [-1, 1] (clamped by the actuators)
    reward            0.1 · ((−u·y + v·x)/r) / (1 + |r − R|), position (x, y), velocity (u, v), r = |(x, y)|
    cost "walls"      1 for each step with |x| > d
    end               truncation after 500 steps of 0.02 s (Point) or 0.04 s (Car); never terminated
"""

import math
from functools import cached_property

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs import robots
from metacpo.envs.base import State
from metacpo.envs.costs import wall_cost
from metacpo.envs.lidar import pseudo_lidar
from metacpo.envs.physics import Engine, MujocoC, Physics, PhysicsState, Vary, build
from metacpo.envs.robots import POINT as POINT
from metacpo.envs.robots import SUBSTEPS, Robot
from metacpo.envs.scene import Bodies, Ring, Scene, Wall
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

EPISODE_LENGTH = 500
START_EXTENT = 0.2  # m: starts are uniform in [-0.2, 0.2]²
LIDAR_RANGE = 6.0  # m
PARAMETERS = {
    "radius": Parameter(default=1.25, low=0.1, high=5.0, unit="m"),
    "wall": Parameter(default=0.938, low=0.05, high=10.0, unit="m"),
}
Range = tuple[float, float]


class Circle:
    """The family of Circle tasks; params: radius R (m) and wall d (m). See the module's table.

    shifted: the range of R in the shifted split; the robots differ in it.
    vary(model, params) edits the robot's model for a task, see `physics.vary`.
    """

    action_size = 2
    action_bound = 1.0
    episode_length = EPISODE_LENGTH
    cost_names = ("walls",)

    def __init__(self, robot: Robot, shifted: Range, engine: Engine = MujocoC, vary: Vary | None = None):
        self.robot = robot
        self.shifted = shifted
        self.engine = engine
        self.vary = vary

    def with_physics(self, engine: Engine) -> "Circle":
        """The same tasks on another engine."""
        return Circle(self.robot, self.shifted, engine, self.vary)

    @property
    def observation_size(self) -> int:
        return self.robot.observation_size + 16

    @cached_property
    def physics(self) -> Physics:
        return build(self.engine, self.robot.mjcf, SUBSTEPS, self.vary)

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters=PARAMETERS,
            draw={
                "train": lambda key: draw_circle(key, radius=(1.0, 1.5), ratio=(0.55, 0.75)),
                "shifted": lambda key: draw_circle(key, radius=self.shifted, ratio=(0.55, 0.65)),
            },
            cost_limit=(25.0,),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """Start at rest, uniform in [-0.2, 0.2]² with uniform heading."""
        place, turn = jax.random.split(key)
        xy = jax.random.uniform(place, (2,), jnp.float32, minval=-START_EXTENT, maxval=START_EXTENT)
        heading = jax.random.uniform(turn, (1,), jnp.float32, maxval=2 * math.pi)
        at_rest = jnp.zeros(self.robot.velocities, jnp.float32)
        physics = self.physics.reset(self.robot.start(xy, heading), at_rest, params=task.params)
        return self._state(task, physics, jnp.int32(0), moved=False)

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of ten MuJoCo steps."""
        return self._state(task, self.physics.step(state.world, action), state.steps + 1, moved=True)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return robots.position(self.robot, state.world.sensors)

    def scene(self, task: Task, state: State) -> Scene:
        """The circle to run along and the two walls, which have no ends."""
        wall = float(task.params["wall"])
        return Ring(0.0, 0.0, float(task.params["radius"]), "course"), Wall(-wall), Wall(wall)

    def bodies(self, task: Task, state: State) -> Bodies:
        return Bodies(state.world)

    def _state(self, task: Task, physics: PhysicsState, steps: Array, moved: bool) -> State:
        robot, sensors = self.robot, physics.sensors
        position, velocity = robots.position(robot, sensors), robots.velocity(robot, sensors)
        centre = robot.ego(sensors, -position[None])
        obs = jnp.concatenate([robot.observe(sensors), pseudo_lidar(centre, LIDAR_RANGE)])
        return State(
            world=physics,
            obs=obs,
            reward=circle_reward(position, velocity, task.params["radius"]) if moved else jnp.float32(0),
            cost=wall_cost(position, task.params["wall"])[None] if moved else jnp.zeros(1, jnp.float32),
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


def draw_circle(key: Key[Array, ""], radius: Range, ratio: Range) -> dict[str, Float[Array, ""]]:
    """R uniform in `radius`, d = u·R with u uniform in `ratio`, rounded to the millimetre as upstream does."""
    first, second = jax.random.split(key)
    R = jax.random.uniform(first, (), jnp.float32, minval=radius[0], maxval=radius[1])
    u = jax.random.uniform(second, (), jnp.float32, minval=ratio[0], maxval=ratio[1])
    return {"radius": R, "wall": jnp.round(u * R, 3)}
