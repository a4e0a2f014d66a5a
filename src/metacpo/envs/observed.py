"""What a policy sees beside the plain observation: the task itself, its limits, or what has just happened.

Controls for what adaptation gains. A policy that sees the task has nothing to find out: it is the ceiling. One that
remembers can find out within an episode, without any update. Limits are no secret of the world, but what a user asks
for: a policy that sees them can be as bold as they allow before any update.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.base import Environment, State
from metacpo.envs.tasks import Task
from metacpo.envs.wrapped import Wrapped


class ObservedTask(Wrapped):
    """The observation, then every parameter of the task, its allowed range scaled to [−1, 1], in the family's order.

    A parameter whose range is one point is 0.
    """

    @property
    def observation_size(self) -> int:
        return self.env.observation_size + len(self.env.tasks.parameters)

    def inner(self, state: State) -> State:
        return _with_obs(state, state.obs[..., : self.env.observation_size])

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        return self._seen(task, self.env.reset(task, key))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        return self._seen(task, self.env.step(task, self.inner(state), action))

    def _seen(self, task: Task, state: State) -> State:
        scaled = [
            (2 * task.params[name] - (field.high + field.low)) / ((field.high - field.low) or jnp.inf)
            for name, field in self.env.tasks.parameters.items()
        ]
        return _with_obs(state, jnp.concatenate([state.obs, jnp.stack(scaled)]) if scaled else state.obs)


class ObservedLimit(Wrapped):
    """The observation, then each of the task's limits, as a multiple of the `usual` one (in its own units where that
    is 0)."""

    def __init__(self, env: Environment, usual: tuple[float, ...]):
        super().__init__(env)
        self.usual = usual

    @property
    def observation_size(self) -> int:
        return self.env.observation_size + len(self.usual)

    def inner(self, state: State) -> State:
        return _with_obs(state, state.obs[..., : self.env.observation_size])

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        return self._seen(task, self.env.reset(task, key))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        return self._seen(task, self.env.step(task, self.inner(state), action))

    def _seen(self, task: Task, state: State) -> State:
        units = jnp.asarray([limit or 1.0 for limit in self.usual], state.obs.dtype)
        return _with_obs(state, jnp.concatenate([state.obs, task.cost_limit / units]))


class History(Wrapped):
    """The observation, then the last `length` (observation, action, costs) before it, the newest first.

    The costs are those that followed the action. Zeros stand before the start of an episode. The past is a part of the
    world: (the inner world, past [H, O + A + m]).
    """

    def __init__(self, env: Environment, length: int):
        super().__init__(env)
        self.length = length

    @property
    def observation_size(self) -> int:
        return self.env.observation_size + self.length * self._entry

    @property
    def _entry(self) -> int:
        return self.env.observation_size + self.env.action_size + len(self.env.cost_names)

    def inner(self, state: State) -> State:
        state = _with_obs(state, state.obs[..., : self.env.observation_size])
        return eqx.tree_at(lambda s: s.world, state, state.world[0])

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        start = self.env.reset(task, key)
        return _remembering(start, jnp.zeros((self.length, self._entry), start.obs.dtype))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        before = self.inner(state)
        after = self.env.step(task, before, action)
        newest = jnp.concatenate([before.obs, action, after.cost])
        return _remembering(after, jnp.concatenate([newest[None], state.world[1][:-1]]))


def _with_obs(state: State, obs: Float[Array, "*batch O"]) -> State:
    return eqx.tree_at(lambda s: s.obs, state, obs)


def _remembering(state: State, past: Float[Array, "H e"]) -> State:
    return State(
        world=(state.world, past),
        obs=jnp.concatenate([state.obs, past.ravel()]),
        reward=state.reward,
        cost=state.cost,
        terminated=state.terminated,
        truncated=state.truncated,
        steps=state.steps,
    )
