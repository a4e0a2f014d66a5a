"""Episodes of a policy on a task, compiled: one `lax.scan` over time, one host call a step for all worlds."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from metacpo.envs.base import Environment, State, position_of
from metacpo.envs.tasks import Task
from metacpo.policies import Distribution, Normaliser, Policy


class Trajectory(eqx.Module):
    """B whole episodes of at most T steps on one task, one episode a column; time first.

    obs[t] is what action[t] was chosen from; reward[t] and cost[t] followed it. valid[t] is 0 from the step
    after an episode's end on, and from the first step on that was not finite (that step included): from the very
    first one for a world whose reset was not.
    final_obs is the observation after the last valid step, whether it ended the episode by termination
    (`terminated`: nothing to bootstrap) or by truncation.
    """

    obs: Float[Array, "*M T B O"]
    action: Float[Array, "*M T B A"]
    log_prob: Float[Array, "*M T B"]
    reward: Float[Array, "*M T B"]
    cost: Float[Array, "*M T B m"]
    valid: Float[Array, "*M T B"]
    terminated: Bool[Array, "*M B"]
    final_obs: Float[Array, "*M B O"]
    nonfinite: Float[Array, "*M"]  # worlds that had to be masked out
    position: Float[Array, "*M T B 2"]  # for path plots, after the step


def rollout(
    env: Environment,
    policy: Policy,
    phi: Float[Array, " n"],
    normaliser: Normaliser,
    task: Task,
    key: Key[Array, ""],
    episodes: int,
    deterministic: bool = False,
) -> Trajectory:
    """`episodes` episodes of π_φ on `task`. vmap over (phi, task, key) for several tasks at once.

    deterministic: every action is the policy's mean; an episode then is as random as its reset and the world.
    """
    reset_key, action_key = jax.random.split(key)
    start = _reset(env, task, reset_key, episodes)
    noise_shape = (env.episode_length, episodes, env.action_size)
    noise = (
        jnp.zeros(noise_shape, phi.dtype) if deterministic else jax.random.normal(action_key, noise_shape, phi.dtype)
    )
    return _simulate(env, lambda obs: policy(phi, normaliser(obs)), task, start, noise)[0]


def rollout_with_states(
    env: Environment,
    policy: Policy,
    phi: Float[Array, " n"],
    normaliser: Normaliser,
    task: Task,
    key: Key[Array, ""],
    episodes: int,
) -> tuple[Trajectory, State]:
    """The episodes of `rollout` with the same key, and all their states [T + 1, B], from the reset on.

    For pictures: states can be large. A world that ended stays where it was.
    """
    reset_key, action_key = jax.random.split(key)
    start = _reset(env, task, reset_key, episodes)
    noise = jax.random.normal(action_key, (env.episode_length, episodes, env.action_size), phi.dtype)
    data, after = _simulate(env, lambda obs: policy(phi, normaliser(obs)), task, start, noise, keep_states=True)
    return data, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start[0], after)


def _simulate(
    env: Environment,
    pi_of: Callable[[Float[Array, "B O"]], Distribution],
    task: Task,
    start: tuple[State, Bool[Array, " B"]],
    noise: Float[Array, "T B A"],
    keep_states: bool = False,
) -> tuple[Trajectory, State | None]:
    """Worlds from their start on, under actions mean + σ · noise, and the states after each step where asked for.

    `start` says which worlds are sound.
    """

    def step(carry: tuple[State, Array], eps: Float[Array, "B A"]):
        state, alive = carry
        pi = pi_of(state.obs)
        action = pi.sample(eps)
        after = jax.vmap(env.step, in_axes=(None, 0, 0))(task, state, action)
        finite = _finite(after)
        valid = alive & finite
        record = dict(
            obs=state.obs,
            action=action,
            log_prob=pi.log_prob(action),
            reward=jnp.where(valid, after.reward, 0.0),
            cost=jnp.where(valid[:, None], after.cost, 0.0),
            valid=valid.astype(jnp.float32),
            position=position_of(env, after),
        )
        # A world that ended, or broke, stays at its last good state.
        kept = jax.tree.map(lambda new, old: jnp.where(_along(valid, new), new, old), after, state)
        carry = (kept, valid & ~after.terminated & ~after.truncated)
        return carry, (record, alive & ~finite, kept if keep_states else None)

    (last, _), (record, broken, kept) = jax.lax.scan(step, start, noise)
    data = Trajectory(
        **record,
        terminated=last.terminated,
        final_obs=last.obs,
        nonfinite=jnp.sum(broken, dtype=jnp.float32) + jnp.sum(~start[1], dtype=jnp.float32),
    )
    return data, kept


def _reset(env: Environment, task: Task, key: Key[Array, ""], episodes: int) -> tuple[State, Bool[Array, " B"]]:
    return _without_broken(jax.vmap(env.reset, in_axes=(None, 0))(task, jax.random.split(key, episodes)))


def _without_broken(start: State) -> tuple[State, Bool[Array, " B"]]:
    """The worlds after a reset, and which of them are sound. The others show zeros: NaN · 0 would be NaN."""
    sound = _finite(start)
    return eqx.tree_at(lambda s: s.obs, start, jnp.where(sound[:, None], start.obs, 0.0)), sound


def _finite(state: State) -> Bool[Array, " B"]:
    """Whether everything that a learner would see of a world is a number."""
    parts = [state.obs, state.cost, state.reward[:, None]]
    return jnp.all(jnp.isfinite(jnp.concatenate(parts, axis=1)), axis=1)


def _along(mask: Bool[Array, " B"], like: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))
