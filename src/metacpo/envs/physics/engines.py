"""Which engines there are, by name, and what an environment may ask of one."""

from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from metacpo.envs.physics.model import PhysicsError
from metacpo.envs.physics.mujoco_c import MujocoC
from metacpo.envs.physics.state import PhysicsState

PHYSICS = ("mujoco", "mjx", "warp")
INSTALL = {"mjx": "pip install 'metacpo[mjx]'", "warp": "pip install 'metacpo[warp]'"}


@runtime_checkable
class Physics(Protocol):
    """An MJCF model, ready to be moved. Pure functions of one world; vmap for many.

    An environment step is `substeps` MuJoCo steps under one control, then one more forward pass: the sensors returned
    belong to the state returned.
    """

    model: Any  # MuJoCo's MjModel

    @property
    def seconds_per_step(self) -> float:
        """Simulated time of one environment step, in seconds."""
        ...

    def reset(
        self, qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], places: Float[Array, "mocaps 3"] | None = None
    ) -> PhysicsState:
        """A world with these coordinates, its sensors evaluated; places (m): of the model's mocap bodies."""
        ...

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"], places: Float[Array, "mocaps 3"] | None = None
    ) -> PhysicsState:
        """One environment step under `control` (the engine clamps it to the actuators' range)."""
        ...


Engine = Callable[[Path, int], Physics]  # (MJCF file, substeps)


def engine(name: str) -> Engine:
    """The engine called `name`. Raises PhysicsError for an unknown one and for one that is not installed.

    "mujoco": C on CPU threads. "mjx": MJX in JAX, on whatever JAX runs on. "warp": MJX on MuJoCo Warp, for NVIDIA GPUs.
    """
    if name not in PHYSICS:
        raise PhysicsError(f"physics: {name!r} is not one of {', '.join(PHYSICS)}")
    if name == "mujoco":
        return MujocoC
    try:
        with redirect_stdout(StringIO()):  # MJX prints that Warp is not there, wanted or not
            from metacpo.envs.physics.mjx import Mjx, check_installed
    except ModuleNotFoundError as error:
        raise PhysicsError(f"physics: {name!r} is not installed (no module {error.name}); {INSTALL[name]}") from None
    check_installed(name)
    return partial(Mjx, impl={"mjx": "jax", "warp": "warp"}[name])
