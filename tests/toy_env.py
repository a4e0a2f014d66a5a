"""A tiny environment in pure JAX whose worlds end, or break, at known steps."""

import jax
import jax.numpy as jnp

from metacpo.envs import State
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

NEVER = 1000


class Counter:
    """A point on a line that moves by 0.1 · action. Observation [5]:

        place, steps taken, step after which the world terminates, step that gives NaN, its place at the start

    Reward: the action; cost: 1 per step at a place > 0. Every second world or so terminates early, and with
    `breaking` = 1 every second one or so breaks: read the observation to see which.
    """

    observation_size = 5
    action_size = 1
    episode_length = 12
    cost_names = ("right",)

    @property
    def tasks(self) -> TaskDistribution:
        parameters = {"breaking": Parameter(default=0.0, low=0.0, high=1.0, unit="")}
        return TaskDistribution(parameters, {"train": lambda key: {"breaking": jnp.zeros(())}}, (1.0,))

    def reset(self, task: Task, key) -> State:
        where, end, broken, when = jax.random.split(key, 4)
        place = jax.random.normal(where)
        end = jax.random.randint(end, (), 1, 2 * self.episode_length).astype(jnp.float32)
        breaks = jax.random.bernoulli(broken) & (task.params["breaking"] > 0)
        when = jax.random.randint(when, (), 1, self.episode_length).astype(jnp.float32)
        return self._state(jnp.stack([place, jnp.zeros(()), end, jnp.where(breaks, when, NEVER), place]), 0.0)

    def step(self, task: Task, state: State, action) -> State:
        place, steps, end, breaks, start = state.obs
        steps = steps + 1
        place = jnp.where(steps == breaks, jnp.nan, place + 0.1 * action[0])
        return self._state(jnp.stack([place, steps, end, breaks, start]), action[0])

    def position(self, state: State):
        return state.obs[..., :2]

    def _state(self, obs, reward) -> State:
        place, steps, end = obs[:3]
        return State(
            world=obs,
            obs=obs,
            reward=jnp.asarray(reward, jnp.float32),
            cost=(place > 0).astype(jnp.float32)[None] + 0 * place,
            terminated=steps >= end,
            truncated=steps >= self.episode_length,
            steps=steps.astype(jnp.int32),
        )
