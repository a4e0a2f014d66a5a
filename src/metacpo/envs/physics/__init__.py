"""Engines that advance an environment's bodies; the only place that imports MuJoCo."""

from metacpo.envs.physics.engines import PHYSICS, Engine, Physics, build, engine
from metacpo.envs.physics.model import PhysicsError
from metacpo.envs.physics.mujoco_c import MujocoC
from metacpo.envs.physics.state import PhysicsState
from metacpo.envs.physics.vary import Vary

__all__ = [
    "PHYSICS",
    "Engine",
    "MujocoC",
    "Physics",
    "PhysicsError",
    "PhysicsState",
    "Vary",
    "build",
    "engine",
]
