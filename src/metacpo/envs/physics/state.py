"""What every engine says of a world."""

import equinox as eqx
from jaxtyping import Array, Float, PyTree, UInt32


class PhysicsState(eqx.Module):
    """One world: its sensors (SI units, MJCF order), MuJoCo's coordinates, and the exact state where it has one.

    MJX goes on from qpos, qvel and act. MuJoCo's C engine computes with float64: it goes on from `bits`, its whole
    state as two words a number, and the rest is rounded for whoever looks at it. MJX has no bits (words = 0).

    varied: what of the model is this world's own, by the task that it began with; nothing where the model is fixed.
    """

    sensors: Float[Array, "*batch sensors"]
    qpos: Float[Array, "*batch nq"]
    qvel: Float[Array, "*batch nv"]
    act: Float[Array, "*batch na"]
    bits: UInt32[Array, "*batch words"]
    varied: PyTree[Array] = ()
