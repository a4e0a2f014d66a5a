"""Circle with hidden signs: which way round the circle pays, and on which side the only wall stands, is not seen.

    observation, action, placement, end      those of the Circle task
    reward            the Circle's, times the direction: 1 counter-clockwise, −1 clockwise
    cost "wall"       1 for each step with side · x > d: the wall stands at x = side · d

Direction and side are ±1 by lot, independently. Whoever does not know the direction earns nothing on average, however
he drives; whoever does not know the side has to keep off both, as in the Circle task, or pays on half of the tasks.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.base import State
from metacpo.envs.families.circle import PARAMETERS, Circle, Range, draw_circle
from metacpo.envs.physics import Engine, MujocoC, Physics
from metacpo.envs.robots import Robot
from metacpo.envs.scene import Bodies, Ring, Scene, Wall
from metacpo.envs.signs import SIGN, require_sign, signs
from metacpo.envs.tasks import Task, TaskDistribution


class CircleSigns:
    """The family of Circle tasks with hidden signs; params: radius R (m), wall d (m), direction and side (−1 or 1)."""

    action_size = Circle.action_size
    action_bound = Circle.action_bound
    episode_length = Circle.episode_length
    cost_names = ("wall",)

    def __init__(self, robot: Robot, shifted: Range, engine: Engine = MujocoC):
        self.circle = Circle(robot, shifted, engine)

    def with_physics(self, engine: Engine) -> "CircleSigns":
        """The same tasks on another engine."""
        return CircleSigns(self.circle.robot, self.circle.shifted, engine)

    @property
    def observation_size(self) -> int:
        return self.circle.observation_size

    @property
    def physics(self) -> Physics:
        return self.circle.physics

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters=PARAMETERS | {"direction": SIGN, "side": SIGN},
            draw={
                "train": lambda key: _draw(key, radius=(1.0, 1.5), ratio=(0.55, 0.75)),
                "shifted": lambda key: _draw(key, radius=self.circle.shifted, ratio=(0.55, 0.65)),
            },
            cost_limit=self.circle.tasks.cost_limit,
            check=_check,
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """The Circle's start."""
        return self.circle.reset(task, key)

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of the Circle task, paid for by the task's signs."""
        after = self.circle.step(task, state, action)
        reward = task.params["direction"] * after.reward
        cost = one_wall_cost(self.circle.position(after), task)
        return eqx.tree_at(lambda s: (s.reward, s.cost), after, (reward, cost[None]))

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return self.circle.position(state)

    def scene(self, task: Task, state: State) -> Scene:
        """The circle to run along and the wall."""
        wall = Wall(float(task.params["side"] * task.params["wall"]))
        return Ring(0.0, 0.0, float(task.params["radius"]), "course"), wall

    def bodies(self, task: Task, state: State) -> Bodies:
        return self.circle.bodies(task, state)


def one_wall_cost(position: Float[Array, " 2"], task: Task) -> Float[Array, ""]:
    """1 behind the wall at x = side · d, else 0."""
    return (task.params["side"] * position[0] > task.params["wall"]).astype(jnp.float32)


def _check(params: dict[str, Float[Array, ""]]) -> None:
    for name in ("direction", "side"):
        require_sign(params, name)


def _draw(key: Key[Array, ""], radius: Range, ratio: Range) -> dict[str, Float[Array, ""]]:
    """The Circle's draw and two signs."""
    circle, lot = jax.random.split(key)
    direction, side = signs(lot, 2)
    return draw_circle(circle, radius, ratio) | {"direction": direction, "side": side}
