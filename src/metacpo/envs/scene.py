"""What there is to see of a task: a few flat shapes seen from above, and the bodies that a camera shows.

All of it is drawn on the host, one world at a time, from NumPy arrays: `task` and `state` have no batch axes here.
Both methods are optional. An environment that lacks them is drawn as a path on an empty floor.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from metacpo.envs.base import Environment, State
from metacpo.envs.tasks import Task
from metacpo.shapes import Disc as Disc
from metacpo.shapes import Ring as Ring
from metacpo.shapes import Role as Role
from metacpo.shapes import Scene as Scene
from metacpo.shapes import Wall as Wall


@runtime_checkable
class Scenic(Protocol):
    """An environment that can say what is on its floor."""

    def scene(self, task: Task, state: State) -> Scene: ...


@dataclass(frozen=True)
class Bodies:
    """What a camera needs of a world: the physics' state, and where its mocap bodies are [mocaps, 3] (m)."""

    physics: Any
    places: np.ndarray | None = None


@runtime_checkable
class Embodied(Protocol):
    """An environment with bodies: `physics.model` is their MuJoCo model, `physics.model_of(params)` that of a task."""

    @property
    def physics(self) -> Any: ...

    def bodies(self, task: Task, state: State) -> Bodies: ...


def scene_of(env: Environment, task: Task, state: State) -> Scene:
    """The environment's shapes; none where it has no `scene`."""
    return env.scene(task, state) if isinstance(env, Scenic) else ()


def grid_step(half: float) -> float:
    """Metres between the lines of a floor's grid, a power of ten, where half the width of the view is `half` m."""
    return 10.0 ** math.ceil(math.log10(half / 5))


def discs(centres: Any, radius: float, role: Role, count: float = math.inf) -> Iterable[Disc]:
    """The first `count` of some centres [k, 2] (m); one that is not finite is nowhere."""
    for index, (x, y) in enumerate(np.asarray(centres, np.float64)):
        if index < count and math.isfinite(x) and math.isfinite(y):
            yield Disc(float(x), float(y), radius, role)
