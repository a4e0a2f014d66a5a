"""Families of safe-control tasks, by name."""

from collections.abc import Callable

from metacpo.envs.bandit import Bandit
from metacpo.envs.base import Environment, State
from metacpo.envs.button import PointButton
from metacpo.envs.circle import Circle
from metacpo.envs.circle_hazard import CircleHazard
from metacpo.envs.navigation import Navigation
from metacpo.envs.physics import PHYSICS, engine
from metacpo.envs.robots import Car, Point
from metacpo.envs.tabular import TollGates

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "point-circle": lambda: Circle(Point(), shifted=(2.0, 2.5)),
    "car-circle": lambda: Circle(Car(), shifted=(1.5, 2.0)),
    "point-circle-hazard": lambda: CircleHazard(Point()),
    "car-circle-hazard": lambda: CircleHazard(Car()),
    "point-button-hazard": PointButton,
    "navigation": Navigation,
    "bandit": Bandit,
    "tabular": TollGates,
}


class UnknownEnvironment(ValueError):
    """An unknown environment or physics engine; the message names what is allowed."""


def make(name: str, physics: str = "mujoco") -> Environment:
    """The environment registered as `name`, e.g. `make("point-circle")`.

    physics: the engine of those families that move bodies; navigation, bandit and tabular are JAX alone.
    """
    if name not in ENVIRONMENTS:
        raise UnknownEnvironment(f"env: {name!r} is not one of {', '.join(ENVIRONMENTS)}")
    env, chosen = ENVIRONMENTS[name](), engine(physics)
    return env.with_physics(chosen) if hasattr(env, "with_physics") else env


__all__ = ["ENVIRONMENTS", "PHYSICS", "Environment", "State", "UnknownEnvironment", "make"]
