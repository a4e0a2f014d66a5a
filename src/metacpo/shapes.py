"""What is on a task's floor, seen from above: flat shapes of plain numbers, and how a file holds them.

Environments make them (`envs/scene.py`), layout.json keeps them, pictures draw them. Nothing here needs JAX, so that a
report opens without it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Role = Literal["hazard", "goal", "button", "course", "wall"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Disc:
    """A round area on the floor; metres."""

    x: float
    y: float
    radius: float
    role: Role


@dataclass(frozen=True)
class Ring:
    """A circle's line on the floor; metres."""

    x: float
    y: float
    radius: float
    role: Role


@dataclass(frozen=True)
class Wall:
    """The line x = const for |y| ≤ half (m), unsafe on the side away from x = 0."""

    x: float
    half: float = math.inf
    role: Role = "wall"


Shape = Disc | Ring | Wall
Scene = tuple[Shape, ...]
KINDS: dict[str, type[Shape]] = {"disc": Disc, "ring": Ring, "wall": Wall}
DECIMALS = 6  # of the numbers in a file (m)
LARGEST = 3.4e38  # m; a float32 holds no more


def to_plain(scene: Scene) -> list[dict[str, Any]]:
    """Shapes as JSON holds them: the kind and the fields. Half of a wall without ends is null: JSON has no infinity."""
    return [{"kind": type(shape).__name__.lower()} | _plain(asdict(shape)) for shape in scene]


def from_plain(shapes: Any) -> Scene:
    """The shapes of a file. Raises ValueError, TypeError or KeyError for anything that `to_plain` does not write."""
    return tuple(_shape(**entry) for entry in shapes)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: round(float(x), DECIMALS) for name, x in fields.items() if name != "role"}
    return {name: x if math.isfinite(x) else None for name, x in numbers.items()} | {"role": fields["role"]}


def _shape(kind: Any, role: Any, **numbers: Any) -> Shape:
    if role not in ROLES:
        raise ValueError(f"role: {role!r}; allowed: {', '.join(ROLES)}")
    values = {name: math.inf if x is None and name == "half" else _finite(x) for name, x in numbers.items()}
    return KINDS[kind](**values, role=role)


def _finite(value: Any) -> float:
    number = float(value)
    if not abs(number) <= LARGEST:
        raise ValueError(f"{value!r} is no finite float32")
    return number
