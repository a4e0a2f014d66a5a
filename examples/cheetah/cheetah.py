"""Gymnasium's HalfCheetah on a bad day: one of its six motors is weak or dead, and it carries a load.

    observation [17]  Gymnasium's own: pose without the place along the track, and all velocities
    action [6]        torques, 1 is the motor's full strength
    reward "forward"  metres along the track
    reward "effort"   −0.1 a second for each motor at full torque; both are Gymnasium's own, times the step's 0.05 s
    cost "speeding"   1 for each step that is faster than SPEED_LIMIT
    task              the strength of every motor (1 is as built), the load on the torso (kg), the floor's friction

Nothing tells the policy which motor it is. The model is the file in Gymnasium's package, found by its path; `vary`
edits a copy of it for each task.
"""

from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco

from metacpo.envs import OwnRobot, Parameter, Snapshot, TaskDistribution, Transition

MOTORS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")  # back and front
SPEED_LIMIT = 1.5  # m/s
STEPS = 100  # of 0.05 s


def vary(model: mujoco.MjModel, params: dict[str, float]) -> None:
    for motor in MOTORS:
        model.actuator(motor).gear[0] *= params[motor]
    torso = model.body("torso")
    torso.inertia[:] *= 1 + params["load"] / torso.mass[0]
    torso.mass[:] += params["load"]
    model.geom_friction[:, 0] *= params["friction"]


def observe(now: Snapshot):
    return jnp.concatenate([now.qpos[1:], now.qvel])


def velocity(step: Transition):
    return (step.after.qpos[0] - step.before.qpos[0]) / step.seconds


def forward(step: Transition):
    return step.after.qpos[0] - step.before.qpos[0]


def effort(step: Transition):
    return -0.1 * step.seconds * jnp.sum(jnp.clip(step.action, -1.0, 1.0) ** 2)


def speeding(step: Transition):
    return velocity(step) > SPEED_LIMIT


def start(key, params, qpos0, nv):
    """Gymnasium's own: the pose shaken by up to 0.1, velocities of deviation 0.1."""
    pose, motion = jax.random.split(key)
    return qpos0 + jax.random.uniform(pose, qpos0.shape, qpos0.dtype, -0.1, 0.1), 0.1 * jax.random.normal(motion, (nv,))


def draw(strength, load, friction):
    """A sampler of tasks: one motor, each as likely, has a strength from a range; load and friction from theirs."""

    def sample(key):
        which, weak, heavy, smooth = jax.random.split(key, 4)
        left = jax.random.uniform(weak, (), minval=strength[0], maxval=strength[1])
        weakest = jax.random.randint(which, (), 0, len(MOTORS))
        return {motor: jnp.where(weakest == i, left, 1.0) for i, motor in enumerate(MOTORS)} | {
            "load": jax.random.uniform(heavy, (), minval=load[0], maxval=load[1]),
            "friction": jax.random.uniform(smooth, (), minval=friction[0], maxval=friction[1]),
        }

    return sample


env = OwnRobot(
    mjcf=Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml",
    tasks=TaskDistribution(
        parameters={motor: Parameter(default=1.0, low=0.0, high=2.0, unit="1") for motor in MOTORS}
        | {
            "load": Parameter(default=0.0, low=0.0, high=20.0, unit="kg"),
            "friction": Parameter(default=1.0, low=0.1, high=5.0, unit="1"),
        },
        draw={
            "train": draw(strength=(0.0, 0.4), load=(0.0, 4.0), friction=(0.6, 1.4)),
            "shifted": draw(strength=(0.0, 0.1), load=(4.0, 7.0), friction=(0.4, 0.6)),
        },
        cost_limit=(10.0,),
    ),
    observe=observe,
    rewards={"forward": forward, "effort": effort},
    costs={"speeding": speeding},
    episode_length=STEPS,
    start=start,
    place=lambda now: jnp.stack([now.qpos[0], now.qpos[1]]),
    vary=vary,
)
