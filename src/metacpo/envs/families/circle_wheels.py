"""Car-Circle-Hazard with a car that nobody has measured: wheels, mass and friction are the task's, and none is seen.

    observation, reward, costs, placement, end      those of the Circle task with hazards
    action [2]        torques of the two wheels, in [-1, 1]; in a crossed car the first is the right wheel's
    vary              each wheel's torque times its gain, the whole car's mass and inertia times `mass`, friction of
                      every contact times `friction`

In a crossed car what steers left steers right, so that no policy that is right for one car is right for all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.base import CostKind, State
from metacpo.envs.families.circle import Range
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.physics import Engine, MujocoC, Physics
from metacpo.envs.robots import Car
from metacpo.envs.tasks import Parameter, Task, TaskDistribution
from metacpo.envs.wrapped import Wrapped

GAIN = Parameter(default=1.0, low=0.1, high=5.0, unit="times")
CAR = {
    "left": GAIN,  # of the wheels' torques
    "right": GAIN,
    "crossed": Parameter(default=0.0, low=0.0, high=1.0, unit="of 0 and 1", whole=True),
    "mass": GAIN,
    "friction": GAIN,
}


def vary(model: Any, params: dict[str, float]) -> None:
    """The car of a task: edits a copy of the compiled model (see physics/vary.py)."""
    for wheel in ("left", "right"):
        model.actuator(wheel).gear[0] *= params[wheel]
    model.body_mass[1:] *= params["mass"]  # 0 is the world
    model.body_inertia[1:] *= params["mass"]
    model.geom_friction[:] *= params["friction"]


class CircleWheels(Wrapped):
    """The family of Circle tasks with hazards for unknown cars; params: those of the task, and of the car `CAR`."""

    vary = staticmethod(vary)

    def __init__(self, engine: Engine = MujocoC, cost_kind: CostKind = "indicator"):
        self.known = CircleHazard(Car(), engine, vary, cost_kind)
        super().__init__(self.known)
        self.engine = engine

    def with_physics(self, engine: Engine) -> "CircleWheels":
        """The same tasks on another engine."""
        return CircleWheels(engine, self.cost_kind)

    def with_cost_kind(self, kind: CostKind) -> "CircleWheels":
        """The same tasks in other costs."""
        return CircleWheels(self.engine, kind)

    @property
    def physics(self) -> Physics:
        return self.known.physics

    @property
    def tasks(self) -> TaskDistribution:
        course = self.known.tasks
        return TaskDistribution(
            parameters={**course.parameters, **CAR},
            draw={
                "train": _draw(course, gain=(0.5, 1.5), mass=(0.7, 1.5), friction=(0.5, 1.5)),
                "shifted": _draw(course, gain=(1.5, 2.0), mass=(1.5, 2.0), friction=(0.3, 0.5)),
            },
            cost_limit=course.cost_limit,
            check=course.check,
        )

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of it, by the wheels that the car has."""
        return self.env.step(task, state, jnp.where(task.params["crossed"] > 0, action[::-1], action))


def _draw(
    course: TaskDistribution, gain: Range, mass: Range, friction: Range
) -> Callable[[Key[Array, ""]], dict[str, Float[Array, ""]]]:
    """A course of the training split, whatever the split, and a car: all uniform, every other one crossed."""

    def draw(key: Key[Array, ""]) -> dict[str, Float[Array, ""]]:
        where, lot, *keys = jax.random.split(key, 6)
        ranges = {"left": gain, "right": gain, "mass": mass, "friction": friction}
        car = {
            name: jax.random.uniform(k, (), jnp.float32, *ends)
            for k, (name, ends) in zip(keys, ranges.items(), strict=True)
        }
        crossed = jax.random.bernoulli(lot).astype(jnp.float32)
        return course.draw["train"](where) | car | {"crossed": crossed}

    return draw
