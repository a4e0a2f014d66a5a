"""A gantry crane that brings its load to a place, gently: a robot of one's own in one file.

    observation [6]   trolley's place (m) and speed (m/s), load's angle (rad) and rate (rad/s), what is left to the
                      goal (m), share of the episode that has passed
    action [1]        force on the trolley, 15 N at 1
    reward            metres that the trolley came nearer to the goal, and a bonus for being there
    cost "speed"      1 for each step in which the trolley is faster than the task allows
    cost "swing"      1 for each step in which the load swings wider than the task allows

How fast and how wide is the task, and is not observed: only the costs tell.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from metacpo.envs import OwnRobot, Parameter, Snapshot, TaskDistribution, Transition

STEPS = 100  # of 0.05 s


def observe(now: Snapshot):
    s = now.sensors
    left = now.params["goal"] - s["place"]
    return jnp.concatenate([s["place"], s["speed"], s["angle"], s["turn"], left, now.time[None] / (0.05 * STEPS)])


def progress(step: Transition):
    goal = step.params["goal"]
    before, after = (jnp.abs(goal - now.sensors["place"][0]) for now in (step.before, step.after))
    return before - after


def arrived(step: Transition):
    return jnp.where(jnp.abs(step.params["goal"] - step.after.sensors["place"][0]) < 0.1, 0.03, 0.0)


def speed(step: Transition):
    return jnp.abs(step.after.sensors["speed"][0]) > step.params["speed"]


def swing(step: Transition):
    return jnp.abs(step.after.sensors["angle"][0]) > step.params["swing"]


def draw(fastest, widest):
    """A sampler of tasks: the goal on either side, the allowed speed (m/s) and swing (rad) each from a range."""

    def sample(key):
        side, far, fast, wide = jax.random.split(key, 4)
        sign = jnp.where(jax.random.bernoulli(side), 1.0, -1.0)
        return {
            "goal": sign * jax.random.uniform(far, (), minval=0.8, maxval=1.2),
            "speed": jax.random.uniform(fast, (), minval=fastest[0], maxval=fastest[1]),
            "swing": jax.random.uniform(wide, (), minval=widest[0], maxval=widest[1]),
        }

    return sample


env = OwnRobot(
    mjcf=Path(__file__).with_name("crane.xml"),
    tasks=TaskDistribution(
        parameters={
            "goal": Parameter(default=1.0, low=-2.0, high=2.0, unit="m"),
            "speed": Parameter(default=0.6, low=0.0, high=5.0, unit="m/s"),
            "swing": Parameter(default=0.2, low=0.0, high=3.0, unit="rad"),
        },
        draw={
            "train": draw(fastest=(0.4, 0.8), widest=(0.1, 0.3)),
            "shifted": draw(fastest=(0.35, 0.45), widest=(0.08, 0.12)),
        },
        cost_limit=(10.0, 10.0),
    ),
    observe=observe,
    rewards={"progress": progress, "arrived": arrived},
    costs={"speed": speed, "swing": swing},
    episode_length=STEPS,
    place=lambda now: jnp.concatenate([now.sensors["place"], -0.6 * jnp.cos(now.sensors["angle"])]),
)
