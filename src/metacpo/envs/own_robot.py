"""Your own robot: an MJCF file and plain functions, no class to write.

    def height(now):   return now.sensors["height"][0]
    def forward(step): return (step.after.qpos[0] - step.before.qpos[0]) / step.seconds
    def fast(step):    return (jnp.abs(step.after.qvel[0]) > step.params["speed"]).astype(jnp.float32)

    env = OwnRobot(
        mjcf=Path(__file__).with_name("hopper.xml"),
        tasks=TaskDistribution(...),
        observe=lambda now: jnp.concatenate([now.qpos[1:], now.qvel]),
        rewards={"forward": forward},
        costs={"fast": fast},
    )

The functions are traced by JAX: jnp instead of np, jnp.where instead of if. Each gets one world; many are vmap's.
`examples/own_robot/` is a complete one, and `metacpo check-env FILE.py:env` finds what usually goes wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import ContractError, State
from metacpo.envs.physics import Engine, MujocoC, Physics, PhysicsState
from metacpo.envs.scene import Bodies
from metacpo.envs.tasks import Task, TaskDistribution

Params = dict[str, Float[Array, ""]]


class Snapshot(NamedTuple):
    """One world at one time, as MuJoCo has it: coordinates, sensors by their MJCF names, seconds since the reset."""

    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    sensors: dict[str, Float[Array, " k"]]
    time: Float[Array, ""]
    params: Params


class Transition(NamedTuple):
    """What a reward or a cost may depend on: the worlds before and after, the action as given, the step's seconds."""

    before: Snapshot
    after: Snapshot
    action: Float[Array, " A"]
    seconds: float
    params: Params


def at_rest(key: Key[Array, ""], params: Params, qpos0: Float[Array, " nq"], nv: int) -> tuple[Array, Array]:
    """The MJCF's own pose, every coordinate shaken by up to 0.01 (a quaternion is normalised by MuJoCo), at rest."""
    return qpos0 + jax.random.uniform(key, qpos0.shape, qpos0.dtype, -0.01, 0.01), jnp.zeros(nv, qpos0.dtype)


def never(now: Snapshot) -> Array:
    """No world ends before its time."""
    return jnp.bool_(False)


@dataclass(frozen=True, eq=False)  # hashable, as a static argument of jit must be
class OwnRobot:
    """An environment of an MJCF file and functions; the contract is `Environment`'s.

    tasks: parameters (which the functions read as `params`), the train and shifted distributions, one limit per cost.
    observe(now) -> [O]. rewards, costs: name -> f(step) -> scalar; the reward is the sum of the rewards, and each cost
    is one component of State.cost, in this order. action: all of the MJCF's actuators, in their control ranges.
    ended(now): the task is over, nothing to bootstrap (a fall). start(key, params, qpos0, nv) -> (qpos, qvel).
    place(now) -> [2], metres: where path plots draw the robot.
    """

    mjcf: Path
    tasks: TaskDistribution
    observe: Callable[[Snapshot], Float[Array, " O"]]
    rewards: Mapping[str, Callable[[Transition], Float[Array, ""]]]
    costs: Mapping[str, Callable[[Transition], Float[Array, ""]]]
    episode_length: int = 500
    substeps: int = 5
    ended: Callable[[Snapshot], Array] = never
    start: Callable[[Key[Array, ""], Params, Array, int], tuple[Array, Array]] = at_rest
    place: Callable[[Snapshot], Float[Array, " 2"]] = field(default=lambda now: now.qpos[:2])
    engine: Engine = MujocoC

    def with_physics(self, engine: Engine) -> "OwnRobot":
        """The same robot and tasks on another engine."""
        return replace(self, engine=engine)

    @cached_property
    def physics(self) -> Physics:
        return self.engine(self.mjcf, self.substeps)

    @property
    def action_size(self) -> int:
        return self.physics.model.nu

    @cached_property
    def observation_size(self) -> int:
        start = jax.eval_shape(lambda key: self.reset(self.tasks.make({}), key).obs, jax.random.key(0))
        return start.shape[0]

    @property
    def cost_names(self) -> tuple[str, ...]:
        return tuple(self.costs)

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """A world as `start` says."""
        model = self.physics.model
        qpos, qvel = self.start(key, task.params, jnp.asarray(model.qpos0, jnp.float32), model.nv)
        physics, steps = self.physics.reset(qpos, qvel), jnp.int32(0)
        return self._state(task, physics, jnp.float32(0), jnp.zeros(len(self.costs), jnp.float32), steps)

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        """`substeps` MuJoCo steps under one control."""
        params, steps = task.params, state.steps + 1
        physics = self.physics.step(state.world, action)
        before, after = self._moment(params, state.world, state.steps), self._moment(params, physics, steps)
        step = Transition(before, after, action, self.physics.seconds_per_step, params)
        rewards = [_scalar("reward", name, f(step)) for name, f in self.rewards.items()]
        costs = [_scalar("cost", name, f(step)) for name, f in self.costs.items()]
        return self._state(task, physics, sum(rewards, jnp.float32(0)), jnp.stack(costs), steps)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        """`place` of each world; tasks do not move it."""

        def one(world: PhysicsState) -> Float[Array, " 2"]:
            return self.place(self._moment({}, world, jnp.int32(0)))

        for _ in range(state.steps.ndim):
            one = jax.vmap(one)
        return one(state.world)

    def bodies(self, task: Task, state: State) -> Bodies:
        """For a camera."""
        return Bodies(state.world)

    def _moment(self, params: Params, physics: PhysicsState, steps: Int32[Array, ""]) -> Snapshot:
        time = steps.astype(jnp.float32) * self.physics.seconds_per_step
        return Snapshot(physics.qpos, physics.qvel, self._named(physics.sensors), time, params)

    def _named(self, sensors: Float[Array, " y"]) -> dict[str, Float[Array, " k"]]:
        """The sensor numbers by the sensors' names; those without one are left out."""
        model = self.physics.model
        names = [model.sensor(i).name for i in range(model.nsensor)]
        ends = np.asarray(model.sensor_adr) + np.asarray(model.sensor_dim)
        return {name: sensors[a:b] for name, a, b in zip(names, model.sensor_adr, ends, strict=True) if name}

    def _state(self, task: Task, physics: PhysicsState, reward: Array, cost: Array, steps: Int32[Array, ""]) -> State:
        now = self._moment(task.params, physics, steps)
        return State(
            world=physics,
            obs=self.observe(now),
            reward=reward,
            cost=cost,
            terminated=jnp.asarray(self.ended(now)) & (steps > 0),
            truncated=steps >= self.episode_length,
            steps=steps,
        )


def _scalar(kind: str, name: str, value: Array) -> Float[Array, ""]:
    """What a reward or a cost function returned, as one number. Raises ContractError for anything else."""
    value = jnp.asarray(value)
    if value.shape != ():
        raise ContractError(
            f"{kind} {name!r}: has shape {value.shape}, wanted one number (); reduce it, e.g. by jnp.sum"
        )
    return value.astype(jnp.float32)
