"""Environments by name: the families of this package, those of installed packages, and one in a file of the user's.

make("point-circle")                     a family of this package
make("hopper")                           registered by @register_env("hopper"), or by a package's entry point:
                                         [project.entry-points."metacpo.environments"]  hopper = "my_package:env"
make("my_package.hopper:env")            an Environment in a module that Python finds
make("examples/own_robot/cart.py:env")   an Environment in a file
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from metacpo.envs.base import MEMBERS, CostKind, Environment, OfCostKinds, OnEngines
from metacpo.envs.families.bandit import Bandit
from metacpo.envs.families.button import PointButton
from metacpo.envs.families.circle import Circle
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.families.circle_signs import CircleSigns
from metacpo.envs.families.circle_wheels import CircleWheels
from metacpo.envs.families.lanes import Lanes
from metacpo.envs.families.navigation import Navigation
from metacpo.envs.families.tabular import TollGates
from metacpo.envs.families.thruster import Thruster
from metacpo.envs.physics import PHYSICS, engine
from metacpo.envs.robots import Car, Point
from metacpo.runtime import references
from metacpo.runtime.references import LoadError, what_failed
from metacpo.runtime.references import source_path as source_path

ENTRY_POINTS = "metacpo.environments"
ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "point-circle": lambda: Circle(Point(), shifted=(2.0, 2.5)),
    "car-circle": lambda: Circle(Car(), shifted=(1.5, 2.0)),
    "point-circle-hazard": lambda: CircleHazard(Point()),
    "car-circle-hazard": lambda: CircleHazard(Car()),
    "point-button-hazard": PointButton,
    "point-circle-signs": lambda: CircleSigns(Point(), shifted=(2.0, 2.5)),
    "car-circle-wheels": CircleWheels,
    "navigation": Navigation,
    "navigation-lanes": Lanes,
    "bandit": Bandit,
    "tabular": TollGates,
    "thruster": Thruster,
}
FAMILIES = tuple(ENVIRONMENTS)  # those of this package


class UnknownEnvironment(ValueError):
    """An environment that cannot be found or is none; the message is one line with the remedy."""


def register_env(name: str) -> Callable[[Callable[[], Environment]], Callable[[], Environment]]:
    """Decorator: a class or a function without arguments whose result is the Environment called `name`.

    Raises UnknownEnvironment if the name is taken: nothing is replaced silently.
    """

    def add(factory: Callable[[], Environment]) -> Callable[[], Environment]:
        if name in ENVIRONMENTS:
            raise UnknownEnvironment(f"env: {name!r} is registered already; take another name")
        ENVIRONMENTS[name] = factory
        return factory

    return add


def known(name: str) -> bool:
    """Whether `make` may find this name: it is registered, or it says where to look."""
    return (":" in name and name.isprintable()) or name in ENVIRONMENTS or name in _installed()


def make(name: str, physics: str = "mujoco", cost_kind: CostKind | None = None) -> Environment:
    """The environment called `name`, or the one at MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE.

    physics: the engine that moves the bodies, one of `PHYSICS`. Families without bodies are JAX alone: any will do.
    An environment of the user's own that has no `with_physics` runs on its own engine only.
    cost_kind: "indicator", a step costs 0 or 1, or "graded"; None leaves it to the environment.
    Raises UnknownEnvironment, PhysicsError.
    """
    env = _found(name)
    if cost_kind is not None:
        if not isinstance(env, OfCostKinds):
            raise UnknownEnvironment(
                f"cost_kind: {cost_kind!r} is not for {name}, which has no with_cost_kind; take settings without it"
            )
        env = env.with_cost_kind(cost_kind)
    chosen = engine(physics)
    if isinstance(env, OnEngines):
        return env.with_physics(chosen)
    if physics != PHYSICS[0] and name not in FAMILIES:
        raise UnknownEnvironment(
            f"physics: {physics!r} is not for {name}, which has no with_physics; take {PHYSICS[0]!r}"
        )
    return env


def load(reference: str) -> Any:
    """The object at MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE. Raises UnknownEnvironment where there is none."""
    try:
        return references.load(reference, "environment")
    except LoadError as error:
        raise UnknownEnvironment(f"env: {error}") from error


def _found(name: str) -> Environment:
    if ":" in name:
        env = load(name)
        # A function that is merely named is not called: a run folder must not be able to say os:abort.
        return _environment(name, _made(name, env) if env in ENVIRONMENTS.values() else env)
    if name in ENVIRONMENTS:
        return _environment(name, _made(name, ENVIRONMENTS[name]))
    if name in _installed():
        return _environment(name, _made(name, _installed()[name].load))
    raise UnknownEnvironment(
        f"env: {name!r} is not one of {', '.join((*ENVIRONMENTS, *_installed()))}, nor a MODULE:ATTRIBUTE"
    )


def _made(name: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise UnknownEnvironment(f"env: {what_failed('cannot be made', name, error)}") from error


def _environment(name: str, env: Any) -> Environment:
    if isinstance(env, type) or not isinstance(env, Environment):
        wanted = [part for part in MEMBERS if not hasattr(env, part)]
        lacks = f"lacks {', '.join(wanted)}" if wanted else "is a class, not an object"
        raise UnknownEnvironment(f"env: {name} is no Environment: {type(env).__name__} {lacks}")
    return env


def _installed() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
