"""The model as both engines take it, and why an engine may not."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import copy
from pathlib import Path

import mujoco
from jaxtyping import Array, Float

NO_WARMSTART = mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
NO_AUTORESET = mujoco.mjtDisableBit.mjDSBL_AUTORESET.value
NO_SENSORS = mujoco.mjtDisableBit.mjDSBL_SENSOR.value
NO_CONTACTS = mujoco.mjtDisableBit.mjDSBL_CONTACT.value
NO_CONSTRAINTS = mujoco.mjtDisableBit.mjDSBL_CONSTRAINT.value


class PhysicsError(ValueError):
    """A model or an engine that cannot be used; the message is one line with the remedy."""


def load(mjcf: Path) -> mujoco.MjModel:
    """The MJCF file as a model with our flags. Raises PhysicsError for a file that is missing or does not compile."""
    try:
        if mjcf.exists() and not mjcf.is_file():  # a pipe or a device would be read for ever
            raise ValueError("it is not a file")
        model = mujoco.MjModel.from_xml_path(str(mjcf))
    except (OSError, ValueError, mujoco.FatalError) as error:  # MuJoCo's words for what it cannot read or compile
        raise PhysicsError(f"mjcf: {mjcf} does not compile: {' '.join(str(error).split())}") from None
    flag(model)
    return model


def flag(model: mujoco.MjModel) -> None:
    """Without warm start the result cannot depend on where calls cut; with MuJoCo's own reset a world that breaks
    is back at time 0, by which it is known."""
    model.opt.disableflags = (model.opt.disableflags | NO_WARMSTART) & ~NO_AUTORESET


def for_moving(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy that is only moved on. It evaluates no sensors, which do not act on the motion, unless one remembers what
    it measured in between; it does not search for constraints if it can have none (the Point: nothing to touch, no
    limits; a sixth of the time).
    """
    moving = copy.copy(model)
    moving.opt.disableflags |= (0 if remembers(model) else NO_SENSORS) | (
        0 if constrainable(model) else NO_CONTACTS | NO_CONSTRAINTS
    )
    return moving


def remembers(model: mujoco.MjModel) -> bool:
    """Whether a sensor or an actuator has a history (nsample), which is a part of the state."""
    return getattr(model, "nhistory", 0) > 0  # older versions of MuJoCo have none


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
