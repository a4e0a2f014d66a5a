"""Families of safe-control tasks, and what one needs to bring one's own."""

from metacpo.envs.base import ContractError, Environment, State
from metacpo.envs.gymnasium.facts import GymnasiumError
from metacpo.envs.gymnasium.importing import from_gymnasium
from metacpo.envs.own_robot import OwnRobot, Snapshot, Transition
from metacpo.envs.physics import PHYSICS, PhysicsError, engine
from metacpo.envs.registry import (
    ENVIRONMENTS,
    FAMILIES,
    UnknownEnvironment,
    known,
    load,
    make,
    register_env,
    source_path,
)
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

__all__ = [
    "ENVIRONMENTS",
    "FAMILIES",
    "PHYSICS",
    "ContractError",
    "Environment",
    "GymnasiumError",
    "OwnRobot",
    "Parameter",
    "PhysicsError",
    "Snapshot",
    "State",
    "Task",
    "TaskDistribution",
    "Transition",
    "UnknownEnvironment",
    "engine",
    "from_gymnasium",
    "known",
    "load",
    "make",
    "register_env",
    "source_path",
]
