"""Families of safe-control tasks, and what one needs to bring one's own."""

from metacpo.envs.base import ContractError, Environment, State
from metacpo.envs.gym_facts import GymnasiumError
from metacpo.envs.gym_in import from_gymnasium
from metacpo.envs.own_robot import Moment, OwnRobot, Step
from metacpo.envs.physics import PHYSICS, PhysicsError, engine
from metacpo.envs.registry import ENVIRONMENTS, FAMILIES, UnknownEnvironment, home, known, load, make, register
from metacpo.tasks import Parameter, Task, TaskDistribution

__all__ = [
    "ENVIRONMENTS",
    "FAMILIES",
    "PHYSICS",
    "ContractError",
    "Environment",
    "GymnasiumError",
    "Moment",
    "OwnRobot",
    "Parameter",
    "PhysicsError",
    "State",
    "Step",
    "Task",
    "TaskDistribution",
    "UnknownEnvironment",
    "engine",
    "from_gymnasium",
    "home",
    "known",
    "load",
    "make",
    "register",
]
