"""Which critic for a task that is met for a few batches only: ridge regression, or a small network?

    python benchmarks/critics.py RUN_DIR [--out benchmarks/critics.csv]

What a critic is for is the gradient. So every critic is fitted to one small batch (as many episodes as an inner
step has) of the trained policy on held-out tasks, the gradients g of the return and b of the cost come from the same
batch, and they are compared with reference gradients from REFERENCE batches twice as large each, without critic
(λ = 1) and, for the cost, without discount: the gradient of what is limited, the cost of an episode.

    cos g, cos b    cosine of the angle to the reference, mean over tasks and batches
    share b         length of b along the reference, as a share of the reference's: what of a true change is foreseen
    fit of r, c     explained variance of the critic on fresh episodes, first half of the episode, median of tasks

Tasks whose reference is itself uncertain (two halves of it disagree) do not count. Networks start from scratch on
every task, as the regression does, and fit the same bootstrapped targets by Adam. Seconds are of one compiled call
for all tasks, fit and gradients.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metacpo.estimation.critics import STRIDE, fit_values
from metacpo.estimation.returns import gae, returns_to_go
from metacpo.policies import GaussianPolicy
from metacpo.rollout import Trajectory, rollout
from metacpo.training import open_run

TASKS, BATCHES, REFERENCE = 8, 3, 16
WIDTH = 32
COST_DISCOUNTS = ((0.99, 0.99), (0.99, 0.95), (1.0, 1.0), (1.0, 0.97))  # (γ, λ) of the cost
REWARD_DISCOUNT = (0.99, 0.97)


class Values(NamedTuple):
    """V of a trajectory's steps [T, B, s] and final observations [B, s], and of fresh observations [T, B', s]."""

    steps: jax.Array
    final: jax.Array
    fresh: jax.Array


# trajectory with normalised observations, fresh normalised observations, γ of every signal -> Values
Critic = Callable[[Trajectory, jax.Array, jax.Array], Values]


def signals_of(data: Trajectory) -> jax.Array:
    """Reward and cost [T, B, 2]."""
    return jnp.concatenate([data.reward[..., None], data.cost], axis=-1)


def go_to(signals: jax.Array, gamma: jax.Array) -> jax.Array:
    """Return-to-go of every signal [T, B, s]."""
    episodes = jax.vmap(returns_to_go, in_axes=(1, None), out_axes=1)
    return jax.vmap(episodes, in_axes=(2, 0), out_axes=2)(signals, gamma)


def ridge(data: Trajectory, fresh: jax.Array, gamma: jax.Array) -> Values:
    """The library's critic. Fresh episodes go in with the others, marked invalid, which keeps them out of the fit."""
    B, none = data.reward.shape[1], jnp.zeros(fresh.shape[:2])
    joint = Trajectory(
        obs=jnp.concatenate([data.obs, fresh], axis=1),
        action=jnp.zeros((*none.shape[:1], B + none.shape[1], 1)),
        log_prob=jnp.concatenate([data.log_prob, none], axis=1),
        reward=jnp.concatenate([data.reward, none], axis=1),
        cost=jnp.concatenate([data.cost, none[..., None]], axis=1),
        valid=jnp.concatenate([data.valid, none], axis=1),
        terminated=jnp.concatenate([data.terminated, jnp.zeros(none.shape[1], bool)]),
        final_obs=jnp.concatenate([data.final_obs, fresh[-1]]),
        nonfinite=data.nonfinite,
        position=jnp.zeros((*none.shape[:1], B + none.shape[1], 2)),
    )
    v, v_final = fit_values(joint, joint.obs, joint.final_obs, signals_of(joint), gamma)
    return Values(v[:, :B], v_final[:B], v[:, B:])


def network(steps: int) -> Critic:
    """A tanh network of two layers with one output per signal; full batches, Adam, targets of unit variance."""
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def values(params, z, t):
        x = jnp.concatenate([z, 2 * t[..., None] - 1], axis=-1)
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    def fit(data: Trajectory, fresh: jax.Array, gamma: jax.Array) -> Values:
        (T, _, size), signals = data.obs.shape, signals_of(data)
        G, goes_on = go_to(signals, gamma), (gamma < 1).astype(jnp.float32)
        mean, std = jnp.mean(G, axis=(0, 1)), jnp.std(G, axis=(0, 1)) + 1e-6
        t = jnp.arange(T, dtype=jnp.float32)[:, None] / T
        ahead = (goes_on * gamma ** (T - jnp.arange(T, dtype=jnp.float32))[:, None])[:, None]
        sizes = ((size + 1, WIDTH), (WIDTH, WIDTH), (WIDTH, signals.shape[-1]))
        keys, init = jax.random.split(jax.random.key(0), len(sizes)), jax.nn.initializers.lecun_normal()
        params = [(init(k, shape), jnp.zeros(shape[1])) for k, shape in zip(keys, sizes, strict=True)]

        def at(params, z, t):
            return values(params, z, jnp.broadcast_to(t, z.shape[:-1])) * std + mean

        def loss(params):
            end = jax.lax.stop_gradient(at(params, data.final_obs, jnp.ones(())))
            error = at(params, data.obs[::STRIDE], t[::STRIDE]) - G[::STRIDE] - ahead[::STRIDE] * end
            return jnp.mean((error / std) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), length=steps)
        final = goes_on * at(params, data.final_obs, jnp.ones(()))
        return Values(at(params, data.obs, t), final, at(params, fresh, t))

    return fit


def time_only(data: Trajectory, fresh: jax.Array, gamma: jax.Array) -> Values:
    """What is known without looking: the mean return-to-go of every time step."""
    signals = signals_of(data)
    mean = jnp.mean(go_to(signals, gamma), axis=1, keepdims=True)
    fresh_values = jnp.broadcast_to(mean, (*fresh.shape[:2], mean.shape[-1]))
    return Values(jnp.broadcast_to(mean, signals.shape), jnp.zeros(signals.shape[1:]), fresh_values)


def gradients(policy: GaussianPolicy, phi: jax.Array, data: Trajectory, v: Values, gamma, lam) -> jax.Array:
    """Σ_t mean_B ∇log π · Â of every signal [2, n]: per episode, at the policy that made the data."""
    over_episodes = jax.vmap(gae, in_axes=(1, 1, 0, 1, 0, None), out_axes=1)
    over_signals = jax.vmap(over_episodes, in_axes=(2, 2, 1, None, None, 0), out_axes=2)
    A = over_signals(signals_of(data), v.steps, v.final, data.valid, data.terminated, (gamma, lam))
    A = A - jnp.mean(A, axis=(0, 1))

    def weighted(p):
        return jnp.einsum("tb,tbs->s", policy(p, data.obs).log_prob(data.action), A) / data.reward.shape[1]

    return jax.jacrev(weighted)(phi)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1) + 1e-12)


def explained(G: np.ndarray, V: np.ndarray, tasks: np.ndarray) -> float:
    """Median over tasks of 1 − Var(G − V)/Var(G), arrays [M, T, B]; a task whose G never varies has none."""
    spread = np.var(G, axis=(1, 2))
    tasks = tasks & (spread > 1e-6)
    return float(np.median(1 - np.var((G - V)[tasks], axis=(1, 2)) / spread[tasks])) if tasks.any() else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    args = parser.parse_args()
    run = open_run(args.run_dir)
    learner, phi, normaliser = run.learner, run.state.theta, run.state.normaliser
    tasks = learner.tasks.sample_batch(jax.random.key(11), TASKS, "held-out")

    def roll(key: jax.Array, episodes: int) -> Trajectory:
        """One batch of every task, observations normalised."""

        def one(task, k):
            data = rollout(learner.env, learner.policy, phi, normaliser, task, k, episodes)
            z = (normaliser(data.obs), normaliser(data.final_obs))
            return eqx.tree_at(lambda d: (d.obs, d.final_obs), data, z)

        return jax.vmap(one)(tasks, jax.random.split(key, TASKS))

    roll = jax.jit(roll, static_argnums=1)
    undiscounted = jnp.array([REWARD_DISCOUNT[0], 1.0])

    @jax.jit
    def reference(data: Trajectory) -> jax.Array:
        def one(d):
            return gradients(learner.policy, phi, d, time_only(d, d.obs, undiscounted), undiscounted, jnp.ones(2))

        return jax.vmap(one)(data)

    parts = np.stack([reference(roll(jax.random.key(100 + i), 2 * learner.meta.episodes)) for i in range(REFERENCE)])
    halves = cosine(parts[::2].mean(0), parts[1::2].mean(0))
    truth, sure = parts.mean(0), halves > 0.5  # [M, 2, n], [M, 2]
    print(f"reference: halves agree with cosine {halves[:, 0].mean():.2f} (g), {halves[sure[:, 1], 1].mean():.2f} (b) "
          f"on {sure[:, 1].sum()} of {TASKS} tasks with a cost to speak of", flush=True)  # fmt: skip
    batches = [roll(jax.random.key(1000 + i), learner.meta.episodes) for i in range(BATCHES)]
    fresh = roll(jax.random.key(2000), 20)

    critics: dict[str, Critic] = {"mean of the time step": time_only, "ridge regression": ridge}
    critics |= {f"network {WIDTH}x{WIDTH}, {steps} steps": network(steps) for steps in (100, 400)}
    header = ("critic", "cost_gamma", "cost_lam", "cos_g", "cos_b", "share_b", "fit_r", "fit_c", "seconds")
    print(("{:26s}" + "{:>11s}" * 8).format(*header))
    rows = []
    for name, critic in critics.items():
        for cost_gamma, cost_lam in COST_DISCOUNTS:
            gamma, lam = jnp.array([REWARD_DISCOUNT[0], cost_gamma]), jnp.array([REWARD_DISCOUNT[1], cost_lam])

            @jax.jit
            def judge(data: Trajectory, z: jax.Array, critic=critic, gamma=gamma, lam=lam):
                def one(d, fresh):
                    v = critic(d, fresh, gamma)
                    return gradients(learner.policy, phi, d, v, gamma, lam), v.fresh

                return jax.vmap(one)(data, z)

            jax.block_until_ready(judge(batches[0], fresh.obs))
            begin = time.perf_counter()
            answers = [jax.tree.map(np.asarray, judge(batch, fresh.obs)) for batch in batches]
            seconds = (time.perf_counter() - begin) / BATCHES
            angles = np.mean([cosine(grad, truth) for grad, _ in answers], axis=0)
            share = np.mean([np.sum(grad * truth, -1) / np.sum(truth**2, -1) for grad, _ in answers], axis=0)
            G = np.asarray(jax.vmap(lambda d, gamma=gamma: go_to(signals_of(d), gamma))(fresh))
            half, seen = G.shape[1] // 2, sure[:, 1]
            fits = [explained(G[:, :half, :, i], answers[0][1][:, :half, :, i], seen) for i in (0, 1)]
            figures = (angles[:, 0].mean(), angles[seen, 1].mean(), share[seen, 1].mean(), *fits, seconds)
            rows.append((name, cost_gamma, cost_lam, *(f"{x:.3f}" for x in figures)))
            print(("{:26s}" + "{:>11}" * 8).format(*rows[-1]), flush=True)
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
