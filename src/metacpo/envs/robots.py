"""The robots that a task can be given: their model, how they start, what they sense."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.envs.lidar import to_ego

ASSETS = Path(__file__).parent / "assets"
POINT = ASSETS / "point.xml"
CAR = ASSETS / "car.xml"
POINT_BUTTON = ASSETS / "point_button.xml"
SUBSTEPS = 10


@runtime_checkable
class Robot(Protocol):
    """A model and the meaning of its numbers.

    The MJCF's first `raw` sensor numbers are what the robot observes of itself; position 3 (m), velocity 3 (m/s, both
    of the body's frame in the world's), x axis 3 and, where it can tilt, y axis 3 follow them.
    """

    mjcf: Path
    raw: int
    velocities: int
    observation_size: int

    def start(self, xy: Float[Array, " 2"], heading: Float[Array, " 1"]) -> Float[Array, " nq"]:
        """Joint positions of a robot standing at `xy` (m), turned by `heading` (rad)."""
        ...

    def observe(self, sensors: Float[Array, " y"]) -> Float[Array, " O"]:
        """What the robot observes of itself."""
        ...

    def ego(self, sensors: Float[Array, " y"], offsets: Float[Array, "k 2"]) -> Float[Array, "k 2"]:
        """Objects on the floor at world-frame `offsets` (m) from the robot, in the robot's frame."""
        ...


def position(robot: Robot, sensors: Float[Array, "*batch y"]) -> Float[Array, "*batch 2"]:
    """Place of the body's frame in the plane, metres."""
    return sensors[..., robot.raw : robot.raw + 2]


def velocity(robot: Robot, sensors: Float[Array, "*batch y"]) -> Float[Array, "*batch 2"]:
    """Velocity of the body's frame in the plane, m/s, world frame."""
    return sensors[..., robot.raw + 3 : robot.raw + 5]


class Point:
    """Slides in the plane and turns about the vertical; action: forward force and turning speed."""

    mjcf = POINT
    raw = 12
    velocities = 3
    observation_size = 12

    def start(self, xy: Float[Array, " 2"], heading: Float[Array, " 1"]) -> Float[Array, " 3"]:
        return jnp.concatenate([xy, heading])

    def observe(self, sensors: Float[Array, " y"]) -> Float[Array, " 12"]:
        """Accelerometer 3 (m/s²), velocimeter 3 (m/s), gyro 3 (rad/s), magnetometer 3 (flux in the robot's frame)."""
        return sensors[: self.raw]

    def ego(self, sensors: Float[Array, " y"], offsets: Float[Array, "k 2"]) -> Float[Array, "k 2"]:
        return to_ego(offsets, sensors[self.raw + 6 : self.raw + 8])


class Car:
    """Two driven wheels and a free ball at the rear; action: torques of the left and of the right wheel."""

    mjcf = CAR
    raw = 19
    velocities = 11
    observation_size = 24
    height = 0.1  # m, of the body's frame: the wheels touch the floor

    def start(self, xy: Float[Array, " 2"], heading: Float[Array, " 1"]) -> Float[Array, " 13"]:
        """Free joint (place, quaternion), left and right wheel, the rear ball's quaternion."""
        half, zero = heading / 2, jnp.zeros(1, xy.dtype)
        turned = jnp.concatenate([jnp.cos(half), zero, zero, jnp.sin(half)])
        rest = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], xy.dtype)
        return jnp.concatenate([xy, jnp.full(1, self.height, xy.dtype), turned, rest])

    def observe(self, sensors: Float[Array, " y"]) -> Float[Array, " 24"]:
        """The Point's 12, then the rear ball's angular velocity 3 (rad/s) and rotation matrix 9, row by row."""
        return jnp.concatenate([sensors[:15], rotation_matrix(sensors[15:19]).ravel()])

    def ego(self, sensors: Float[Array, " y"], offsets: Float[Array, "k 2"]) -> Float[Array, "k 2"]:
        """The car can tilt: its axes have a vertical part, and the floor is its own height below it."""
        place, axes = sensors[self.raw : self.raw + 3], sensors[self.raw + 6 : self.raw + 12].reshape(2, 3)
        down = jnp.broadcast_to(-place[2], (offsets.shape[0], 1))
        return jnp.sum(jnp.concatenate([offsets, down], axis=1)[:, None] * axes, axis=-1)


def rotation_matrix(quaternion: Float[Array, " 4"]) -> Float[Array, "3 3"]:
    """Of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return jnp.array(rows)
