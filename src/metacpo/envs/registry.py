"""Environments by name: the families of this package, those of installed packages, and one in a file of the user's.

make("point-circle")                     a family of this package
make("hopper")                           registered by @register_env("hopper"), or by a package's entry point:
                                         [project.entry-points."metacpo.environments"]  hopper = "my_package:env"
make("my_package.hopper:env")            an Environment in a module that Python finds
make("examples/own_robot/cart.py:env")   an Environment in a file
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from metacpo.envs.base import MEMBERS, ContractError, Environment
from metacpo.envs.families.bandit import Bandit
from metacpo.envs.families.button import PointButton
from metacpo.envs.families.circle import Circle
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.families.circle_signs import CircleSigns
from metacpo.envs.families.lanes import Lanes
from metacpo.envs.families.navigation import Navigation
from metacpo.envs.families.tabular import TollGates
from metacpo.envs.families.thruster import Thruster
from metacpo.envs.gymnasium.facts import GymnasiumError
from metacpo.envs.physics import PHYSICS, PhysicsError, engine
from metacpo.envs.robots import Car, Point
from metacpo.envs.tasks import TaskError

ENTRY_POINTS = "metacpo.environments"
ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "point-circle": lambda: Circle(Point(), shifted=(2.0, 2.5)),
    "car-circle": lambda: Circle(Car(), shifted=(1.5, 2.0)),
    "point-circle-hazard": lambda: CircleHazard(Point()),
    "car-circle-hazard": lambda: CircleHazard(Car()),
    "point-button-hazard": PointButton,
    "point-circle-signs": lambda: CircleSigns(Point(), shifted=(2.0, 2.5)),
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


def make(name: str, physics: str = "mujoco") -> Environment:
    """The environment called `name`, or the one at MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE.

    physics: the engine that moves the bodies, one of `PHYSICS`. Families without bodies are JAX alone: any will do.
    An environment of the user's own that has no `with_physics` runs on its own engine only.
    Raises UnknownEnvironment, PhysicsError.
    """
    env = _found(name)
    chosen = engine(physics)
    if hasattr(env, "with_physics"):
        return env.with_physics(chosen)  # pyright: ignore[reportAttributeAccessIssue]
    if physics != PHYSICS[0] and name not in FAMILIES:
        raise UnknownEnvironment(
            f"physics: {physics!r} is not for {name}, which has no with_physics; take {PHYSICS[0]!r}"
        )
    return env


def source_path(name: str) -> Path | None:
    """Where the code of MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE lies, found without running any of it; else None."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return Path(where).resolve()
    found, places = None, None
    for part in where.split("."):  # a folder without __init__.py is a package too, and has no code of its own
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            break
        found, places = spec.origin or found, spec.submodule_search_locations
        if places is None:
            break
    return Path(found).resolve() if found else None


def load(reference: str) -> Any:
    """The object at MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE. Raises UnknownEnvironment where there is none."""
    where, _, attribute = reference.rpartition(":")
    if where.partition(".")[0] in sys.stdlib_module_names:  # some do something when they are imported
        raise UnknownEnvironment(f"env: {where!r} is a module of Python itself, which holds no environment")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise _refused(f"{where!r} cannot be imported", where, error) from error
    if not attribute or not hasattr(module, attribute):
        raise UnknownEnvironment(f"env: {where!r} has no attribute {attribute!r}")
    return getattr(module, attribute)


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
        raise _refused(f"{name!r} cannot be made", name, error) from error


def _refused(what: str, where: str, error: BaseException) -> UnknownEnvironment:
    """What went wrong in code of the user's, in one line with its place: our own words as they are."""
    text = " ".join(str(error).split())
    if isinstance(error, ContractError | GymnasiumError | PhysicsError | TaskError | UnknownEnvironment):
        return UnknownEnvironment(f"env: {where!r}: {text}")
    return UnknownEnvironment(f"env: {what} ({type(error).__name__}: {text})")


def _environment(name: str, env: Any) -> Environment:
    if isinstance(env, type) or not isinstance(env, Environment):
        wanted = [part for part in MEMBERS if not hasattr(env, part)]
        lacks = f"lacks {', '.join(wanted)}" if wanted else "is a class, not an object"
        raise UnknownEnvironment(f"env: {name} is no Environment: {type(env).__name__} {lacks}")
    return env


def _installed() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _from_file(path: Path) -> ModuleType:
    """The module in a file, imported once, as a script would be: files beside it can be imported."""
    path = path.resolve(strict=True)
    name = f"metacpo_user:{path}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with _importable(path.parent):
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
    return sys.modules[name]


@contextmanager
def _importable(folder: Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
