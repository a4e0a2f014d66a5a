"""Navigation: a point with bounded acceleration reaches a goal past round hazards that it does not see.

    observation [6]   position 2 (m), velocity 2 (m/s), offset to the goal 2 (m)
    action [2]        acceleration in [-1, 1]² (clamped), times 3 m/s²
    motion            v ← v + dt·(3·a − 1.5·v),  p ← p + dt·v,  dt = 0.05 s: at most 2 m/s along each axis
    reward            decrease of the distance to the goal (m), plus 0.03 for each step within 0.2 m of it
    cost "hazards"    1 for each step that ends inside a hazard
    end               truncation after 100 steps; never terminated

Places and sizes of the hazards, the goal and the limit are the task. The hazards are not observed: a policy that
sees them can solve every task as it is, and there would be nothing to adapt. Only the cost tells where they are.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import State
from metacpo.envs.scene import Disc, Scene
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

DT = 0.05  # s
ACCELERATION = 3.0  # m/s² at action 1
DAMPING = 1.5  # 1/s
EPISODE_LENGTH = 100
START = (-1.2, 0.0)  # m: starts are uniform in ±START_EXTENT round it
START_EXTENT = 0.1
GOAL_RADIUS = 0.2  # m
GOAL_BONUS = 0.03
HAZARDS = 2

Pair = Float[Array, "*batch 2"]


class Navigation:
    """The family of navigation tasks; params: goal_x, goal_y and of hazards 1 and 2 x, y and radius (m)."""

    observation_size = 6
    action_size = 2
    action_bound = 1.0
    episode_length = EPISODE_LENGTH
    cost_names = ("hazards",)

    @property
    def tasks(self) -> TaskDistribution:
        def place(default: float) -> Parameter:
            return Parameter(default, low=-3.0, high=3.0, unit="m")

        parameters = {"goal_x": place(1.2), "goal_y": place(0.0)}
        for i, (x, y, radius) in enumerate([(-0.1, 0.15, 0.35), (0.5, -0.5, 0.25)], start=1):
            parameters |= {f"hazard{i}_x": place(x), f"hazard{i}_y": place(y)}
            parameters[f"hazard{i}_radius"] = Parameter(radius, low=0.0, high=1.0, unit="m")
        return TaskDistribution(
            parameters=parameters,
            draw={
                "train": lambda key: _draw(key, goal_y=(-0.3, 0.3), radius=(0.25, 0.4)),
                "shifted": lambda key: _draw(key, goal_y=(-0.6, 0.6), radius=(0.4, 0.5)),
            },
            cost_limit=(8.0,),
            limit_factors=(0.6, 1.4),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """At rest, uniform in a square of 0.2 m round (−1.2, 0)."""
        shift = jax.random.uniform(key, (2,), jnp.float32, minval=-START_EXTENT, maxval=START_EXTENT)
        place = jnp.asarray(START, jnp.float32) + shift
        return _state(task, place, jnp.zeros(2, jnp.float32), jnp.float32(0), jnp.zeros(1, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Float[Array, " 2"]) -> State:
        """One step of 0.05 s."""
        before, world = state.world[:2], moved(state.world, action)
        after, velocity = world[:2], world[2:]
        return _state(
            task,
            after,
            velocity,
            progress_reward(before, after, _goal(task)),
            hazard_cost(after, *_hazards(task))[None],
            state.steps + 1,
        )

    def position(self, state: State) -> Pair:
        return state.world[..., :2]

    def scene(self, task: Task, state: State) -> Scene:
        """The goal and the hazards."""
        at = {name: float(value) for name, value in task.params.items()}
        hazards = [f"hazard{i + 1}" for i in range(HAZARDS)]
        discs = [Disc(at[f"{name}_x"], at[f"{name}_y"], at[f"{name}_radius"], "hazard") for name in hazards]
        return *discs, Disc(at["goal_x"], at["goal_y"], GOAL_RADIUS, "goal")


def moved(world: Float[Array, " 4"], action: Float[Array, " 2"]) -> Float[Array, " 4"]:
    """Position and velocity after a step from these."""
    velocity = world[2:] + DT * (ACCELERATION * jnp.clip(action, -1.0, 1.0) - DAMPING * world[2:])
    return jnp.concatenate([world[:2] + DT * velocity, velocity])


def progress_reward(
    before: Float[Array, " 2"], after: Float[Array, " 2"], goal: Float[Array, " 2"]
) -> Float[Array, ""]:
    """Metres that a step came nearer to the goal, plus the bonus for ending it there."""
    was, left = (jnp.sqrt(jnp.sum((goal - place) ** 2)) for place in (before, after))
    return was - left + jnp.where(left <= GOAL_RADIUS, GOAL_BONUS, 0.0)


def hazard_cost(place: Float[Array, " 2"], centres: Float[Array, "k 2"], radii: Float[Array, " k"]) -> Float[Array, ""]:
    """1 inside a hazard (on its rim too), however many overlap there; else 0."""
    inside = jnp.sum((place - centres) ** 2, axis=-1) <= radii**2
    return jnp.any(inside).astype(jnp.float32)


def _state(
    task: Task,
    place: Float[Array, " 2"],
    velocity: Float[Array, " 2"],
    reward: Float[Array, ""],
    cost: Float[Array, " 1"],
    steps: Int32[Array, ""],
) -> State:
    return State(
        world=jnp.concatenate([place, velocity]),
        obs=jnp.concatenate([place, velocity, _goal(task) - place]),
        reward=reward,
        cost=cost,
        terminated=jnp.bool_(False),
        truncated=steps >= EPISODE_LENGTH,
        steps=steps,
    )


def _goal(task: Task) -> Float[Array, " 2"]:
    return jnp.stack([task.params["goal_x"], task.params["goal_y"]])


def _hazards(task: Task) -> tuple[Float[Array, "k 2"], Float[Array, " k"]]:
    """Centres and radii."""
    x, y, radius = (
        jnp.stack([task.params[f"hazard{i + 1}_{name}"] for i in range(HAZARDS)]) for name in ("x", "y", "radius")
    )
    return jnp.stack([x, y], axis=-1), radius


def _draw(key: Key[Array, ""], goal_y: tuple[float, float], radius: tuple[float, float]) -> dict[str, Array]:
    """Hazard 1 lies across the straight way, more to one side; hazard 2, smaller, farther on and on either side."""
    ranges = {
        "goal_x": (1.1, 1.3),
        "goal_y": goal_y,
        "hazard1_x": (-0.3, 0.1),
        "hazard1_y": (-0.3, 0.3),
        "hazard1_radius": radius,
        "hazard2_x": (0.4, 0.6),
        "hazard2_y": (-0.7, 0.7),
        "hazard2_radius": (0.2, 0.3),
    }
    keys = jax.random.split(key, len(ranges))
    return {
        name: jax.random.uniform(k, (), jnp.float32, minval=low, maxval=high)
        for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
    }
