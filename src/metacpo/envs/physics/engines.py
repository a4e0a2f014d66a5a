"""Which engines there are, by name, and what an environment may ask of one."""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from metacpo.envs.physics.model import PhysicsError
from metacpo.envs.physics.mujoco_c import MujocoC
from metacpo.envs.physics.state import PhysicsState
from metacpo.envs.physics.vary import Vary

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
        self,
        qpos: Float[Array, " nq"],
        qvel: Float[Array, " nv"],
        places: Float[Array, "mocaps 3"] | None = None,
        params: Mapping[str, Float[Array, ""]] | None = None,
    ) -> PhysicsState:
        """A world with these coordinates, its sensors evaluated; places (m): of the model's mocap bodies.

        params: of the task. Where the model varies with them, they make the world's own, which it keeps.
        """
        ...

    def model_of(self, params: Mapping[str, float]) -> Any:
        """The model of a task with these parameters; the one model where it does not vary. Raises PhysicsError."""
        ...

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"], places: Float[Array, "mocaps 3"] | None = None
    ) -> PhysicsState:
        """One environment step under `control` (the engine clamps it to the actuators' range)."""
        ...


Engine = Callable[..., Physics]  # (MJCF file, substeps), and vary= where the model varies


def build(chosen: Engine, mjcf: Path, substeps: int, vary: Vary | None) -> Physics:
    """The engine with this model. Raises PhysicsError where the model varies and the engine has one model for all."""
    if vary is None:
        return chosen(mjcf, substeps)
    if not callable(vary):
        raise PhysicsError(f"vary: {type(vary).__name__} is no function; give vary(model, params) or None")
    try:
        signature(chosen).bind(mjcf, substeps, vary=vary)
    except TypeError:
        raise PhysicsError("vary: this engine has one model for all tasks; take physics 'mujoco' or 'mjx'") from None
    return chosen(mjcf, substeps, vary=vary)


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
