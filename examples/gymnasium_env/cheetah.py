"""Gymnasium's HalfCheetah with a speed limit that every task has elsewhere, as a family of tasks for metacpo."""

import gymnasium
import jax
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from metacpo.envs import Parameter, TaskDistribution, from_gymnasium

EPISODE_LENGTH = 100  # steps of 0.05 s


class SpeedLimit(gymnasium.Wrapper):
    """info["cost"] is 1 for each step that is faster than target_speed (m/s). The rest is the stock's."""

    def __init__(self, env: gymnasium.Env, target_speed: float):
        super().__init__(env)
        self.target_speed = target_speed

    def set_task(self, params: dict[str, float]) -> None:
        """Another limit for the next episode: the environment need not be built anew."""
        self.target_speed = params["target_speed"]

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        info["cost"] = float(info["x_velocity"] > self.target_speed)
        return obs, reward, terminated, truncated, info


def make(params: dict[str, float]) -> gymnasium.Env:
    """The environment of one task."""
    # Checks of what the environment returns are for its author: they cost a tenth of the time here.
    env = gymnasium.make("HalfCheetah-v5", max_episode_steps=EPISODE_LENGTH, disable_env_checker=True)
    return SpeedLimit(env, params["target_speed"])


def position(env: gymnasium.Env) -> tuple[float, float]:
    """Metres: how far it ran, and the height of its torso above the start."""
    cheetah = env.unwrapped
    assert isinstance(cheetah, HalfCheetahEnv)
    return cheetah.data.qpos[0], cheetah.data.qpos[1]


def between(low: float, high: float):
    return lambda key: {"target_speed": jax.random.uniform(key, (), minval=low, maxval=high)}


env = from_gymnasium(
    make,
    TaskDistribution(
        parameters={"target_speed": Parameter(1.0, low=0.0, high=10.0, unit="m/s")},
        draw={"train": between(0.6, 1.4), "shifted": between(1.4, 1.8)},
        cost_limit=(10.0,),
    ),
    position=position,
)
