"""Engines that advance an environment's bodies; the only place that imports MuJoCo."""

from metacpo.envs.physics.mujoco_c import MujocoC, PhysicsState

__all__ = ["MujocoC", "PhysicsState"]
