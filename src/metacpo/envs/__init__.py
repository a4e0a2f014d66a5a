"""Families of safe-control tasks, and what one needs to bring one's own."""

from metacpo.envs.base import ContractError, Environment, State
from metacpo.envs.gym_facts import GymnasiumError
from metacpo.envs.gym_in import from_gymnasium
from metacpo.envs.own_robot import Snapshot, OwnRobot, Transition
from metacpo.envs.physics import PHYSICS, PhysicsError, engine
from metacpo.envs.registry import ENVIRONMENTS, FAMILIES, UnknownEnvironment, source_path, known, load, make, register
from metacpo.tasks import Parameter, Task, TaskDistribution

__all__ = [
    "ENVIRONMENTS",
    "FAMILIES",
    "PHYSICS",
    "ContractError",
    "Environment",
    "GymnasiumError",
    "Snapshot",
    "OwnRobot",
    "Parameter",
    "PhysicsError",
    "State",
    "Transition",
    "Task",
    "TaskDistribution",
    "UnknownEnvironment",
    "engine",
    "from_gymnasium",
    "source_path",
    "known",
    "load",
    "make",
    "register",
]
