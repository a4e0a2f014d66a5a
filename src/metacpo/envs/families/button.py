"""Button with hazards: press the goal button, no other one, and keep off the hazards.

Facts and numbers: Safety-Gymnasium 1.0.0's parts with the parameter ranges of Meta-CPO's task files.

    observation       what the robot observes of itself, then 16-bin pseudo-lidars (range 3 m) of the buttons (zeros
                      while the timer runs), of the goal button and of the hazards
    action [2]        the robot's, in [-1, 1] (clamped by the actuators)
    reward            metres by which the goal button came nearer, + 1 when the robot touches it. A touch makes another
                      button the goal, drawn from all, and sets the timer to 10 steps
    cost "buttons"    1 for each step in which the robot touches a wrong button while the timer is 0;
                      graded: the contacts between its and their geoms
    cost "hazards"    1 for each step in which the robot's centre is within 0.2 m of a hazard's;
                      graded: Σ 1 · (0.2 − distance) over those hazards
    placement         at every reset, in ±extent, keep-outs 0.4 m (robot) and 0.2 m (buttons, hazards), heading uniform
    end               truncation after 1000 steps; never terminated
"""

import math
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from metacpo.envs import robots
from metacpo.envs.base import CostKind, State
from metacpo.envs.costs import hazard_cost, of_kind
from metacpo.envs.families.circle import Range
from metacpo.envs.lidar import pseudo_lidar
from metacpo.envs.physics import Engine, MujocoC, Physics, PhysicsState, Vary, build
from metacpo.envs.placement import crowded, place
from metacpo.envs.robots import POINT_BUTTON, SUBSTEPS, Point
from metacpo.envs.scene import Bodies, Scene, discs
from metacpo.envs.tasks import Parameter, Task, TaskDistribution, TaskError

EPISODE_LENGTH = 1000
LIDAR_RANGE = 3.0  # m
BUTTONS, HAZARDS = 10, 16  # most of a task
BUTTON_SIZE = 0.1  # m
HAZARD_SIZE, HAZARD_RATE = 0.2, 1.0  # m, cost per metre
ROBOT_KEEP_OUT, KEEP_OUT = 0.4, 0.2  # m
TIMER = 10  # steps
BELOW = -9.0  # m: where the buttons are that a task lacks


class ButtonWorld(eqx.Module):
    """Robot, objects (places in m; those beyond the task's numbers are not there), and the state of the game.

    key: of the goals still to be drawn; one is folded out of it per step.
    """

    physics: PhysicsState
    buttons: Float[Array, "*batch b 2"]
    hazards: Float[Array, "*batch h 2"]
    goal: Int32[Array, "*batch"]
    timer: Int32[Array, "*batch"]
    key: Key[Array, "*batch"]


class PointButton:
    """The family of Button tasks with hazards; params: extent (m), numbers of buttons and of hazards."""

    observation_size = Point.observation_size + 3 * 16
    action_size = 2
    action_bound = 1.0
    episode_length = EPISODE_LENGTH
    cost_names = ("buttons", "hazards")

    def __init__(self, engine: Engine = MujocoC, vary: Vary | None = None, cost_kind: CostKind = "indicator"):
        self.robot = Point()
        self.engine = engine
        self.vary = vary
        self.cost_kind: CostKind = cost_kind

    def with_physics(self, engine: Engine) -> "PointButton":
        """The same tasks on another engine."""
        return PointButton(engine, self.vary, self.cost_kind)

    def with_cost_kind(self, kind: CostKind) -> "PointButton":
        """The same tasks in other costs."""
        return PointButton(self.engine, self.vary, kind)

    @cached_property
    def physics(self) -> Physics:
        return build(self.engine, POINT_BUTTON, SUBSTEPS, self.vary)

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "extent": Parameter(default=1.9, low=0.5, high=10.0, unit="m"),
                "buttons": Parameter(default=4.0, low=1.0, high=float(BUTTONS), unit="buttons", whole=True),
                "hazards": Parameter(default=7.0, low=0.0, high=float(HAZARDS), unit="hazards", whole=True),
            },
            draw={
                "train": lambda key: _draw(key, extent=(1.75, 2.0), buttons=(3, 6), more=3),
                "shifted": lambda key: _draw(key, extent=(2.6, 2.9), buttons=(6, 10), more=6),
            },
            cost_limit=(25.0, 25.0),
            check=_check,
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """Robot at rest, objects round it, one of the buttons lit, the timer at 0."""
        where, turn, which, goals = jax.random.split(key, 4)
        robot, buttons, hazards = _place(task.params, where)
        heading = jax.random.uniform(turn, (1,), jnp.float32, maxval=2 * math.pi)
        start = self.robot.start(robot, heading)
        at_rest = jnp.zeros(self.robot.velocities, jnp.float32)
        physics = self.physics.reset(start, at_rest, _spheres(task.params, buttons), task.params)
        goal = _light(which, task.params)
        world = ButtonWorld(physics, buttons, hazards, goal, jnp.int32(0), goals)
        return self._state(task, world, jnp.float32(0), jnp.zeros(2, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of 0.02 s: motion, reward and costs for the goal that was lit, then perhaps another goal."""
        world = state.world
        physics = self.physics.step(world.physics, action, _spheres(task.params, world.buttons))
        before, after = self.position(state), robots.position(self.robot, physics.sensors)
        touched = physics.sensors[-BUTTONS:]
        reward, cost = reward_and_cost(task, world, before, after, touched)
        pressed = touched[world.goal] > 0
        another = _light(jax.random.fold_in(world.key, state.steps), task.params)
        world = ButtonWorld(
            physics=physics,
            buttons=world.buttons,
            hazards=world.hazards,
            goal=jnp.where(pressed, another, world.goal),
            timer=jnp.where(pressed, TIMER, jnp.maximum(world.timer - 1, 0)),
            key=world.key,
        )
        return self._state(task, world, reward, cost, state.steps + 1)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return robots.position(self.robot, state.world.physics.sensors)

    def scene(self, task: Task, state: State) -> Scene:
        """Hazards, the lit button as the goal, and the other buttons."""
        world, params = state.world, task.params
        buttons, lit = np.array(world.buttons), int(world.goal)
        goal = tuple(discs(buttons[lit : lit + 1], BUTTON_SIZE, "goal"))
        buttons[lit] = np.nan  # it is no other button
        others = discs(buttons, BUTTON_SIZE, "button", float(params["buttons"]))
        return *discs(world.hazards, HAZARD_SIZE, "hazard", float(params["hazards"])), *others, *goal

    def bodies(self, task: Task, state: State) -> Bodies:
        """The buttons are mocap bodies: where they stand is no part of the physics' state."""
        params = {name: jnp.asarray(value) for name, value in task.params.items()}
        return Bodies(state.world.physics, np.asarray(_spheres(params, jnp.asarray(state.world.buttons))))

    def _state(
        self,
        task: Task,
        world: ButtonWorld,
        reward: Float[Array, ""],
        cost: Float[Array, " 2"],
        steps: Int32[Array, ""],
    ) -> State:
        return State(
            world=world,
            obs=self.observe(task, world),
            reward=reward,
            cost=of_kind(self.cost_kind, cost),
            terminated=jnp.bool_(False),
            truncated=steps >= EPISODE_LENGTH,
            steps=steps,
        )

    def observe(self, task: Task, world: ButtonWorld) -> Float[Array, " O"]:
        """What the robot sees of a world."""
        sensors = world.physics.sensors
        place = robots.position(self.robot, sensors)
        lit = jnp.arange(BUTTONS) == world.goal

        def lidar(objects: Float[Array, "k 2"], present: Bool[Array, " k"]) -> Float[Array, " 16"]:
            return pseudo_lidar(self.robot.ego(sensors, objects - place), LIDAR_RANGE, present=present)

        buttons = lidar(world.buttons, _present(task.params, "buttons") & (world.timer == 0))
        hazards = lidar(world.hazards, _present(task.params, "hazards"))
        return jnp.concatenate([self.robot.observe(sensors), buttons, lidar(world.buttons, lit), hazards])


def reward_and_cost(
    task: Task,
    world: ButtonWorld,
    before: Float[Array, " 2"],
    after: Float[Array, " 2"],
    touched: Float[Array, " b"],
) -> tuple[Float[Array, ""], Float[Array, " 2"]]:
    """Of a step from `before` to `after` (m) that left `touched` contacts with each button; the costs graded."""
    goal = world.buttons[world.goal]
    nearer = jnp.linalg.norm(before - goal) - jnp.linalg.norm(after - goal)
    reward = nearer + (touched[world.goal] > 0).astype(jnp.float32)
    wrong = jnp.sum(jnp.where(jnp.arange(BUTTONS) == world.goal, 0.0, touched))
    buttons = jnp.where(world.timer == 0, wrong, 0.0)
    hazards = hazard_cost(after, world.hazards, _present(task.params, "hazards"), HAZARD_SIZE, HAZARD_RATE)
    return reward, jnp.stack([buttons, hazards])


def _present(params: dict[str, Float[Array, ""]], what: str) -> Bool[Array, " k"]:
    return jnp.arange({"buttons": BUTTONS, "hazards": HAZARDS}[what], dtype=jnp.float32) < params[what]


def _light(key: Key[Array, ""], params: dict[str, Float[Array, ""]]) -> Int32[Array, ""]:
    """One of the task's buttons; it may be the one that was lit before."""
    return jax.random.randint(key, (), 0, params["buttons"].astype(jnp.int32), jnp.int32)


def _spheres(params: dict[str, Float[Array, ""]], buttons: Float[Array, "b 2"]) -> Float[Array, "b 3"]:
    """The buttons' centres in the physics: on the floor, or far below it."""
    there = _present(params, "buttons") & jnp.all(jnp.isfinite(buttons), axis=-1)
    numbers = jnp.arange(BUTTONS, dtype=jnp.float32)
    aside = jnp.stack([numbers, jnp.zeros_like(numbers), jnp.full_like(numbers, BELOW)], axis=1)
    return jnp.where(there[:, None], jnp.pad(buttons, ((0, 0), (0, 1)), constant_values=BUTTON_SIZE), aside)


def _place(
    params: dict[str, Float[Array, ""]], key: Key[Array, ""]
) -> tuple[Float[Array, " 2"], Float[Array, "b 2"], Float[Array, "h 2"]]:
    """Robot first, then buttons, then hazards, as upstream does."""
    first, rest = jax.random.split(key)
    half = params["extent"] - ROBOT_KEEP_OUT
    robot = half * jax.random.uniform(first, (2,), jnp.float32, minval=-1.0, maxval=1.0)
    present = jnp.concatenate([_present(params, "buttons"), _present(params, "hazards")])
    objects = place(rest, params["extent"], KEEP_OUT, present, robot[None], ROBOT_KEEP_OUT)
    return robot, objects[:BUTTONS], objects[BUTTONS:]


def _objects(params: dict[str, Float[Array, ""]], key: Key[Array, ""]) -> Float[Array, "n 2"]:
    return _place(params, key)[1]


def _check(params: dict[str, Float[Array, ""]]) -> None:
    """Raises TaskError where the objects find no room."""
    if crowded(_objects, params):
        raise TaskError(
            f"task.extent: no room for {params['buttons']:g} buttons and {params['hazards']:g} hazards "
            f"in ±{params['extent']:g} m; take a larger extent, or fewer of them"
        )


def _draw(key: Key[Array, ""], extent: Range, buttons: tuple[int, int], more: int) -> dict[str, Float[Array, ""]]:
    """Extent uniform, number of buttons uniform with both ends, `more` hazards than buttons."""
    first, second = jax.random.split(key)
    count = jax.random.randint(second, (), buttons[0], buttons[1] + 1, jnp.int32).astype(jnp.float32)
    half = jax.random.uniform(first, (), jnp.float32, minval=extent[0], maxval=extent[1])
    return {"extent": half, "buttons": count, "hazards": count + more}
