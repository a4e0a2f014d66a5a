"""What check-env asks of an environment with bodies: whether MuJoCo could move them, and whether MJX can."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool

from metacpo.envs.declared import Finding
from metacpo.envs.physics import PhysicsError, engine


def broken_world(env: Any, lost: Bool[np.ndarray, "T B"], split: str) -> Finding | None:
    """The fault of worlds that are NaN because MuJoCo warned; None if none is, or for another reason."""
    said = getattr(getattr(env, "physics", None), "warning", None)
    if said is None or not lost.any():
        return None
    where = f"step {int(np.argwhere(lost)[0][0])} of a {split} task of {env.physics.mjcf.name}"
    remedy = "take a shorter timestep, weaker actuators, or a start without overlaps"
    return Finding("physics", f"MuJoCo gave up a world at {where} ({said.rstrip(' .')}); {remedy}")


def left_out_by_mjx(env: Any) -> Iterator[Finding]:
    """Whether MJX can simulate the model too: a note, for whoever wants a GPU."""
    if not hasattr(env, "with_physics"):
        return
    try:
        env.with_physics(engine("mjx")).physics  # noqa: B018
    except PhysicsError as error:
        yield Finding("mjx", str(error), fatal=False)
