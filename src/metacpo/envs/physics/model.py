"""The model as both engines take it, and why an engine may not."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

from pathlib import Path

import mujoco
from jaxtyping import Array, Float

NO_WARMSTART = mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
NO_SENSORS = mujoco.mjtDisableBit.mjDSBL_SENSOR.value
NO_CONTACTS = mujoco.mjtDisableBit.mjDSBL_CONTACT.value
NO_CONSTRAINTS = mujoco.mjtDisableBit.mjDSBL_CONSTRAINT.value


class PhysicsError(ValueError):
    """A model or an engine that cannot be used; the message is one line with the remedy."""


def load(mjcf: Path, moving: bool = False) -> mujoco.MjModel:
    """The MJCF file as a model. Without warm start the result cannot depend on where calls cut.

    moving: the model that is only moved on: it evaluates no sensors, which do not act on the motion, and does not
    search for constraints if it can have none (the Point: nothing to touch, no limits; a sixth of the time).
    Raises PhysicsError for a file that is missing or does not compile.
    """
    try:
        if mjcf.exists() and not mjcf.is_file():  # a pipe or a device would be read for ever
            raise ValueError("it is not a file")
        model = mujoco.MjModel.from_xml_path(str(mjcf))
    except (OSError, ValueError, mujoco.FatalError) as error:  # MuJoCo's words for what it cannot read or compile
        raise PhysicsError(f"mjcf: {mjcf} does not compile: {' '.join(str(error).split())}") from None
    idle = NO_SENSORS if constrainable(model) else NO_SENSORS | NO_CONTACTS | NO_CONSTRAINTS
    model.opt.disableflags |= NO_WARMSTART | (idle if moving else 0)
    return model


def constrainable(model: mujoco.MjModel) -> bool:
    """Whether a state of this model can have a constraint: equality, limit, friction loss or contact."""
    able = (model.geom_contype[:, None] & model.geom_conaffinity[None, :]) != 0
    apart = model.geom_bodyid[:, None] != model.geom_bodyid[None, :]
    contacts = bool((able & apart).any()) or model.npair > 0 or model.nflex > 0
    limits = model.jnt_limited.any() or model.tendon_limited.any()
    friction = model.dof_frictionloss.any() or model.tendon_frictionloss.any()
    return bool(contacts or limits or friction or model.neq > 0)


def check_places(model: mujoco.MjModel, places: Float[Array, "mocaps 3"] | None) -> None:
    """Raises ValueError unless there is a place for each of the model's mocap bodies."""
    if (0 if places is None else places.shape[0]) != model.nmocap:
        given = "none" if places is None else f"{places.shape[0]}"
        raise ValueError(f"places: {given} given, the model has {model.nmocap} mocap bodies")
