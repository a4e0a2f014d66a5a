"""Thruster: a craft in a box whose thruster sits at an angle, with a gain, perhaps mirrored, that nothing tells it.

    observation [4]   position 2 (m), offset to the goal 2 (m)
    action [2]        a thrust in [-1, 1]² (clamped), in the thruster's own axes
    motion            p ← p + 0.1 s · gain · R(angle) · S · thrust: thick air, no inertia. R(angle) is the rotation by
                      it; S = diag(1, −1) on a mirrored craft (its second axis is wired the wrong way round), else 1
    reward            decrease of the distance to the goal, in units of the mean distance from a start to a goal
    cost "outside"    1 for each step that ends outside of the box |x| ≤ 1 m, |y| ≤ 1 m
    placement         at every reset, start and goal anywhere within 0.6 m of the middle, one apart from the other
    end               truncation after 30 steps; never terminated

Episodes that end at their goals return 1 on average, those that end as far away as they began 0. The task is the angle
(of the whole circle), the gain, and whether the craft is mirrored (every second one). A thrust is as likely to lead
away from the goal, and out of the box, as to lead there; reward and cost tell within a few steps.

Why mirrored ones: a rotation alone is no secret that has to be found out. With offset and thrust as complex numbers, a
policy that thrusts along e² for an offset e makes its craft move by e' = c·e², whatever its rotation and gain c. The
solutions are 1/e = k − c·t: almost all end at the goal, on circles through it, the field lines of a dipole. Pooled
training found this policy on a family without mirrored crafts (.53 before any update; docs/experiments.md). A mirrored
craft moves by e' = c·conj(e²), under which almost every way leads to infinity; what suits it, u = conj(e²), fails the
others.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import State
from metacpo.envs.scene import Disc, Scene, Wall
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

DT = 0.1  # s
EPISODE_LENGTH = 30
HALF = 1.0  # m, half of the box's width
PLACES = 0.6  # m, radius of the disc of starts and goals
MEAN_WAY = 128 * PLACES / (45 * math.pi)  # m, mean distance of two places that are uniform in a disc
GOAL_RADIUS = 0.1  # m, in pictures

Pair = Float[Array, " 2"]


class CraftWorld(eqx.Module):
    """Where the craft, its start and its goal are (m)."""

    place: Float[Array, "*batch 2"]
    start: Float[Array, "*batch 2"]
    goal: Float[Array, "*batch 2"]


class Thruster:
    """The family of thruster tasks; params: the thruster's angle (rad) and gain (m/s at thrust 1), mirrored or not."""

    observation_size = 4
    action_size = 2
    action_bound = 1.0
    episode_length = EPISODE_LENGTH
    cost_names = ("outside",)

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "angle": Parameter(default=0.0, low=-math.pi, high=math.pi, unit="rad"),
                "gain": Parameter(default=1.0, low=0.0, high=5.0, unit="m/s"),
                "mirrored": Parameter(default=0.0, low=0.0, high=1.0, unit="of 0 and 1", whole=True),
            },
            draw={
                "train": lambda key: _draw(key, gain=(0.6, 1.4)),
                "shifted": lambda key: _draw(key, gain=(1.4, 2.0)),
            },
            cost_limit=(1.0,),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """Start and goal anew, one apart from the other: else a place would tell how the craft came there."""
        start, goal = (_in_disc(k) for k in jax.random.split(key))
        return _state(CraftWorld(start, start, goal), jnp.float32(0), jnp.zeros(1, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Pair) -> State:
        """One step of 0.1 s."""
        world = state.world
        after = world.place + thrust(task, jnp.clip(action, -1.0, 1.0))
        reward = progress(world.place, after, world.goal)
        return _state(CraftWorld(after, world.start, world.goal), reward, outside(after)[None], state.steps + 1)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return state.world.place

    def scene(self, task: Task, state: State) -> Scene:
        """The goal and two sides of the box; a floor has no lines of constant y."""
        x, y = (float(value) for value in state.world.goal)
        return Disc(x, y, GOAL_RADIUS, "goal"), Wall(-HALF, HALF), Wall(HALF, HALF)


def thrust(task: Task, action: Pair) -> Pair:
    """How far a step moves the craft (m)."""
    cos, sin = jnp.cos(task.params["angle"]), jnp.sin(task.params["angle"])
    first, second = action[0], (1.0 - 2.0 * task.params["mirrored"]) * action[1]
    turned = jnp.stack([cos * first - sin * second, sin * first + cos * second])
    return DT * task.params["gain"] * turned


def progress(before: Pair, after: Pair, goal: Pair) -> Float[Array, ""]:
    """How much nearer to the goal a step brought the craft, in mean ways."""
    was, left = (jnp.sqrt(jnp.sum((goal - place) ** 2)) for place in (before, after))
    return (was - left) / MEAN_WAY


def outside(place: Pair) -> Float[Array, ""]:
    """1 beyond a side of the box, else 0."""
    return jnp.any(jnp.abs(place) > HALF).astype(jnp.float32)


def optimal_value(task: Task, start: Pair, goal: Pair) -> Float[Array, ""]:
    """No policy earns more from `start` in an episode, whatever it knows; one that knows the task can, at no cost,
    where the goal can be reached.

    The places that T steps reach are a square round the start, whose sides lie T·0.1 s·gain from it, turned by the
    angle; it is its own mirror image. In its axes the offset to the goal is e = R(−angle)(goal − start), the nearest
    place of the square falls short of the goal by max(0, |e| − T·0.1 s·gain) along each axis, and the value is, in mean
    ways,

        ‖e‖ − ‖max(0, |e| − T·0.1 s·gain)‖.

    Where the goal lies in the square it is all of ‖e‖. Then the straight way leads there in time, and within the box,
    which is convex and holds both ends: no step costs anything.
    """
    reach = EPISODE_LENGTH * DT * task.params["gain"]
    cos, sin = jnp.cos(task.params["angle"]), jnp.sin(task.params["angle"])
    x, y = goal - start
    own = jnp.abs(jnp.stack([cos * x + sin * y, cos * y - sin * x]))
    short = jnp.maximum(0.0, own - reach)
    return (jnp.sqrt(jnp.sum(own**2)) - jnp.sqrt(jnp.sum(short**2))) / MEAN_WAY


def _in_disc(key: Key[Array, ""]) -> Pair:
    """A place that is uniform within PLACES of the middle."""
    turn, far = jax.random.split(key)
    angle = jax.random.uniform(turn, (), jnp.float32, minval=-math.pi, maxval=math.pi)
    radius = PLACES * jnp.sqrt(jax.random.uniform(far, (), jnp.float32))
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _state(world: CraftWorld, reward: Float[Array, ""], cost: Float[Array, " 1"], steps: Int32[Array, ""]) -> State:
    return State(
        world=world,
        obs=jnp.concatenate([world.place, world.goal - world.place]),
        reward=reward,
        cost=cost,
        terminated=jnp.bool_(False),
        truncated=steps >= EPISODE_LENGTH,
        steps=steps,
    )


def _draw(key: Key[Array, ""], gain: tuple[float, float]) -> dict[str, Array]:
    """The angle uniform on the whole circle, the gain uniform in `gain`, every second craft mirrored."""
    turn, strength, mirror = jax.random.split(key, 3)
    return {
        "angle": jax.random.uniform(turn, (), jnp.float32, minval=-math.pi, maxval=math.pi),
        "gain": jax.random.uniform(strength, (), jnp.float32, minval=gain[0], maxval=gain[1]),
        "mirrored": jax.random.bernoulli(mirror).astype(jnp.float32),
    }
