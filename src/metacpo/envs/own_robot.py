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

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import ContractError, State
from metacpo.envs.physics import Engine, MujocoC, Physics, PhysicsState, Vary, build
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
    is one component of State.cost, in this order. action: one number for each of the MJCF's actuators; -1 and 1 are the
    ends of its ctrlrange, and one without is controlled by the number itself.
    ended(now): the task is over, nothing to bootstrap (a fall). start(key, params, qpos0, nv) -> (qpos, qvel).
    place(now) -> [2], metres: where path plots draw the robot. vary(model, params) edits a copy of the compiled model
    (masses, friction, gear, ...), on the host, once for each task: the robot itself is the task's.
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
    vary: Vary | None = None
    engine: Engine = MujocoC

    def with_physics(self, engine: Engine) -> "OwnRobot":
        """The same robot and tasks on another engine."""
        return replace(self, engine=engine)

    @cached_property
    def physics(self) -> Physics:
        return build(self.engine, self.mjcf, self.substeps, self.vary)

    @property
    def action_size(self) -> int:
        return self.physics.model.nu

    @property
    def action_bound(self) -> float:
        return 1.0 if np.all(self.physics.model.actuator_ctrllimited) else math.inf

    @property
    def faults(self) -> tuple[tuple[str, str], ...]:
        """For check-env: (name, text) of what an own robot's model must not be."""
        return tuple(_faults(self.physics.model, self.mjcf.name))

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """For check-env: (name, text) of what may be meant."""
        free = np.flatnonzero(~np.asarray(self.physics.model.actuator_ctrllimited, bool)).tolist()
        text = f"actuators {free} of {self.mjcf.name} have no ctrlrange: they get the number that the policy draws"
        return (("no-ctrlrange", f"{text}, initial_std about 0 at first"),) if free else ()

    @cached_property
    def observation_size(self) -> int:
        start = jax.eval_shape(lambda key: self.reset(self.tasks.make({}), key).obs, jax.random.key(0))
        return start.shape[0]

    @property
    def cost_names(self) -> tuple[str, ...]:
        return tuple(self.costs)

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """A world as `start` says. Raises ContractError for a model or a start that is none of an own robot's."""
        for name, text in self.faults:
            raise ContractError(f"{name}: {text}")
        model = self.physics.model
        started = self.start(key, task.params, jnp.asarray(model.qpos0, jnp.float32), model.nv)
        physics, steps = (
            self.physics.reset(*_coordinates(started, model.nq, model.nv), params=task.params),
            jnp.int32(0),
        )
        return self._state(task, physics, jnp.float32(0), jnp.zeros(len(self.costs), jnp.float32), steps)

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        """`substeps` MuJoCo steps under one control."""
        params, steps = task.params, state.steps + 1
        physics = self.physics.step(state.world, self._control(action))
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

    def _control(self, action: Float[Array, " A"]) -> Float[Array, " nu"]:
        """What the actuators get: an action in [-1, 1] mapped to their ctrlrange, where it is another one."""
        model = self.physics.model
        low, high = (jnp.asarray(end, jnp.float32) for end in np.asarray(model.actuator_ctrlrange).T)
        mapped = np.asarray(model.actuator_ctrllimited, bool) & np.any(model.actuator_ctrlrange != [-1, 1], axis=1)
        if not mapped.any():  # MuJoCo clamps; nothing else is done to a number
            return action
        share = (1 + jnp.clip(action, -1, 1)) / 2
        return jnp.where(mapped, low * (1 - share) + high * share, action)

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
        """What is seen of a world. Of one that MuJoCo gave up nothing is, whatever the functions make of NaN."""
        now = self._moment(task.params, physics, steps)
        broken = jnp.any(jnp.isnan(physics.qpos))
        return State(
            world=physics,
            obs=jnp.where(broken, jnp.nan, self.observe(now)),
            reward=jnp.where(broken, jnp.nan, reward),
            cost=jnp.where(broken, jnp.nan, cost),
            terminated=jnp.asarray(self.ended(now)) & (steps > 0),
            truncated=steps >= self.episode_length,
            steps=steps,
        )


def _faults(model: Any, mjcf: str) -> Iterator[tuple[str, str]]:
    if model.nu == 0:
        yield "no-actuators", f"{mjcf} has no actuators, so that no action moves it; add an <actuator> section"
    if model.nmocap:
        text = f"{mjcf} has {model.nmocap} mocap bodies, which something outside of the physics must place"
        yield "mocap", f'{text}; take mocap="true" off a body that stands still, give one that moves joints'


def _coordinates(started: Any, nq: int, nv: int) -> tuple[Array, Array]:
    """(qpos, qvel) of what `start` returned. Raises ContractError for anything else."""
    if not (isinstance(started, tuple) and len(started) == 2):
        raise ContractError(f"start: returns {type(started).__name__}, wanted (qpos, qvel)")
    found = []
    for name, value, size in zip(("qpos", "qvel"), started, (nq, nv), strict=True):
        value = jnp.asarray(value)
        if value.shape != (size,):
            raise ContractError(f"start: {name} has shape {value.shape}, wanted ({size},)")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ContractError(f"start: {name} has type {value.dtype}, wanted floats")
        found.append(value)
    return found[0], found[1]


def _scalar(kind: str, name: str, value: Array) -> Float[Array, ""]:
    """What a reward or a cost function returned, as one number. Raises ContractError for anything else."""
    value = jnp.asarray(value)
    if value.shape != ():
        raise ContractError(
            f"{kind} {name!r}: has shape {value.shape}, wanted one number (); reduce it, e.g. by jnp.sum"
        )
    return value.astype(jnp.float32)
