"""Families of safe-control tasks, by name."""

from collections.abc import Callable

from metacpo.envs.bandit import Bandit
from metacpo.envs.base import Environment, State
from metacpo.envs.circle import PointCircle
from metacpo.envs.navigation import Navigation
from metacpo.envs.tabular import TollGates

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "point-circle": PointCircle,
    "navigation": Navigation,
    "bandit": Bandit,
    "tabular": TollGates,
}
PHYSICS = ("mujoco",)


class UnknownEnvironment(ValueError):
    """An unknown environment or physics engine; the message names what is allowed."""


def make(name: str, physics: str = "mujoco") -> Environment:
    """The environment registered as `name`, e.g. `make("point-circle")`.

    physics: the engine of those families that move bodies; navigation, bandit and tabular are JAX alone.
    """
    if name not in ENVIRONMENTS:
        raise UnknownEnvironment(f"env: {name!r} is not one of {', '.join(ENVIRONMENTS)}")
    if physics not in PHYSICS:
        raise UnknownEnvironment(f"physics: {physics!r} is not one of {', '.join(PHYSICS)}")
    return ENVIRONMENTS[name]()


__all__ = ["ENVIRONMENTS", "PHYSICS", "Environment", "State", "UnknownEnvironment", "make"]
