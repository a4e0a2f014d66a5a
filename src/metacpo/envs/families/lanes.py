"""Navigation in a lane: a hazard leaves a free passage on its left or on its right, and nothing tells which.

    observation [6]   position 2 (m), velocity 2 (m/s), offset to the goal 2 (m)
    action, motion    those of Navigation (navigation.py)
    reward            decrease of the distance to the goal (m), less 0.02 for each step that ends farther than 0.2 m off
    cost "hazard"     1 for each step that ends inside the hazard
    cost "lane"       1 for each step that ends outside of the lane |x| ≤ 0.6 m
    end               truncation after 60 steps of 0.05 s; never terminated

The lane leads along y, from (0, −1.2) to the goal at (0, 1.2). The hazard lies `offset` to the right (side 1) or to the
left (side −1) of its middle and reaches over the lane's wall there. There is no free detour: the straight way leads
through the hazard, a way round it outside of the lane, waiting costs time, and the free passage has to be known.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import State
from metacpo.envs.costs import wall_cost
from metacpo.envs.families.navigation import GOAL_RADIUS, hazard_cost, moved
from metacpo.envs.scene import Disc, Scene, Wall
from metacpo.envs.signs import SIGN, require_sign, signs
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

EPISODE_LENGTH = 60
HALF = 0.6  # m, half of the lane's width
START = (0.0, -1.2)  # m: starts are uniform in ±START_EXTENT round it
START_EXTENT = 0.1
GOAL = (0.0, 1.2)  # m
TIME_PRICE = 0.02  # per step

Pair = Float[Array, " 2"]
Range = tuple[float, float]


class Lanes:
    """The family of lane tasks; params: side (−1 or 1), offset, y and radius of the hazard (m)."""

    observation_size = 6
    action_size = 2
    action_bound = 1.0
    episode_length = EPISODE_LENGTH
    cost_names = ("hazard", "lane")

    @property
    def tasks(self) -> TaskDistribution:
        return TaskDistribution(
            parameters={
                "side": SIGN,
                "offset": Parameter(default=0.2, low=0.0, high=1.0, unit="m"),
                "hazard_y": Parameter(default=0.0, low=-3.0, high=3.0, unit="m"),
                "radius": Parameter(default=0.4, low=0.0, high=1.0, unit="m"),
            },
            draw={
                "train": lambda key: _draw(key, offset=(0.2, 0.25), radius=(0.4, 0.45)),
                "shifted": lambda key: _draw(key, offset=(0.2, 0.25), radius=(0.45, 0.5)),
            },
            cost_limit=(2.0, 2.0),
            check=lambda params: require_sign(params, "side"),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """At rest, uniform in a square of 0.2 m round (0, −1.2)."""
        shift = jax.random.uniform(key, (2,), jnp.float32, minval=-START_EXTENT, maxval=START_EXTENT)
        world = jnp.concatenate([jnp.asarray(START, jnp.float32) + shift, jnp.zeros(2, jnp.float32)])
        return _state(world, jnp.float32(0), jnp.zeros(2, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Pair) -> State:
        """One step of 0.05 s."""
        world = moved(state.world, action)
        after = world[:2]
        centre = jnp.stack([task.params["side"] * task.params["offset"], task.params["hazard_y"]])
        hazard = hazard_cost(after, centre[None], task.params["radius"][None])
        cost = jnp.stack([hazard, wall_cost(after, jnp.float32(HALF))])
        return _state(world, hurried_reward(state.world[:2], after), cost, state.steps + 1)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return state.world[..., :2]

    def scene(self, task: Task, state: State) -> Scene:
        """The lane, the hazard and the goal."""
        at = {name: float(value) for name, value in task.params.items()}
        hazard = Disc(at["side"] * at["offset"], at["hazard_y"], at["radius"], "hazard")
        return Wall(-HALF), Wall(HALF), hazard, Disc(*GOAL, GOAL_RADIUS, "goal")


def hurried_reward(before: Pair, after: Pair) -> Float[Array, ""]:
    """Metres that a step came nearer to the goal, less the price of its time if it does not end there."""
    goal = jnp.asarray(GOAL, jnp.float32)
    was, left = (jnp.sqrt(jnp.sum((goal - place) ** 2)) for place in (before, after))
    return was - left - jnp.where(left > GOAL_RADIUS, TIME_PRICE, 0.0)


def _state(world: Float[Array, " 4"], reward: Float[Array, ""], cost: Pair, steps: Int32[Array, ""]) -> State:
    return State(
        world=world,
        obs=jnp.concatenate([world, jnp.asarray(GOAL, jnp.float32) - world[:2]]),
        reward=reward,
        cost=cost,
        terminated=jnp.bool_(False),
        truncated=steps >= EPISODE_LENGTH,
        steps=steps,
    )


def _draw(key: Key[Array, ""], offset: Range, radius: Range) -> dict[str, Array]:
    """The side by lot; the hazard somewhere in the middle third of the lane."""
    lot, *keys = jax.random.split(key, 4)
    ranges = {"offset": offset, "hazard_y": (-0.2, 0.2), "radius": radius}
    drawn = {
        name: jax.random.uniform(k, (), jnp.float32, minval=low, maxval=high)
        for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
    }
    return {"side": signs(lot, 1)[0]} | drawn
