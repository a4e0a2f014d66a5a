"""Which critic for a task that is met for a few batches only: ridge regression, or a small network?

    python benchmarks/critics.py RUN_DIR [--out benchmarks/critics.csv]

On held-out tasks, every critic is fitted to one batch of the trained policy (as many episodes as an inner step has)
and judged on fresh episodes of the same policy and task: explained variance 1 − Var(G − V)/Var(G) of the discounted
return-to-go G in the first half of an episode, where what lies beyond its end no longer counts. The networks start
from scratch on every task, as the regression does; they see the same observations and the time, and fit the same
bootstrapped targets by Adam. Seconds are those of one fit of all tasks and of both signals, compiled.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metacpo.estimation.critics import STRIDE, fit_values
from metacpo.estimation.returns import returns_to_go
from metacpo.rollout import Trajectory, rollout
from metacpo.training import open_run

TASKS = 20
FRESH = 20  # episodes to judge on
WIDTH = 32
NETWORK_STEPS = (100, 400, 1600)
SIGNALS = ("reward", "cost")
# A fit: trajectory, its normalised observations, the fresh ones; to V of the fresh ones [T, B, signal].
Fit = Callable[[Trajectory, jax.Array, jax.Array, jax.Array], jax.Array]


def signals_of(data: Trajectory) -> jax.Array:
    return jnp.concatenate([data.reward[..., None], data.cost], axis=-1)


def go_to(signals: jax.Array, gamma: float) -> jax.Array:
    """Return-to-go of every signal [T, B, s]."""
    one = jax.vmap(jax.vmap(lambda r: returns_to_go(r, gamma), in_axes=1, out_axes=1), in_axes=2, out_axes=2)
    return one(signals)


def ridge(gamma: float) -> Fit:
    """The library's own critic. It returns values only where it was given observations, so both go in together;
    the fresh steps are marked invalid, which keeps them out of the fit."""

    def fit(data: Trajectory, z: jax.Array, z_final: jax.Array, fresh: jax.Array) -> jax.Array:
        def both(a, b):
            return jnp.concatenate([a, b], axis=1)

        signals = signals_of(data)
        blank = jnp.zeros((*fresh.shape[:2], signals.shape[-1]))
        joint = Trajectory(
            obs=both(z, fresh),
            action=both(data.action, jnp.zeros((*fresh.shape[:2], data.action.shape[-1]))),
            log_prob=both(data.log_prob, blank[..., 0]),
            reward=both(data.reward, blank[..., 0]),
            cost=both(data.cost, blank[..., 1:]),
            valid=both(data.valid, blank[..., 0]),
            terminated=jnp.concatenate([data.terminated, jnp.zeros(fresh.shape[1], bool)]),
            final_obs=jnp.concatenate([z_final, fresh[-1]]),
            nonfinite=data.nonfinite,
            position=both(data.position, jnp.zeros((*fresh.shape[:2], 2))),
        )
        discount = jnp.full(signals.shape[-1], gamma)
        v, _ = fit_values(joint, joint.obs, joint.final_obs, both(signals, blank), discount)
        return v[:, z.shape[1] :]

    return fit


def network(gamma: float, steps: int) -> Fit:
    """A tanh network of two layers with one output per signal; full batches, Adam, targets of unit variance."""
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def values(params, z, t):
        x = jnp.concatenate([z, 2 * t[..., None] - 1], axis=-1)
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    def fit(data: Trajectory, z: jax.Array, z_final: jax.Array, fresh: jax.Array) -> jax.Array:
        T, B, size = z.shape
        signals = signals_of(data)
        G = go_to(signals, gamma)
        mean, std = jnp.mean(G, axis=(0, 1)), jnp.std(G, axis=(0, 1)) + 1e-6
        t = jnp.broadcast_to((jnp.arange(T) / T)[:, None], (T, B))
        ahead = gamma ** (T - jnp.arange(T, dtype=z.dtype))[:, None, None]
        sizes = ((size + 1, WIDTH), (WIDTH, WIDTH), (WIDTH, signals.shape[-1]))
        keys = jax.random.split(jax.random.key(0), len(sizes))
        init = jax.nn.initializers.lecun_normal()
        params = [(init(k, shape), jnp.zeros(shape[1])) for k, shape in zip(keys, sizes, strict=True)]

        def loss(params):
            v = values(params, z[::STRIDE], t[::STRIDE]) * std + mean
            v_end = values(params, z_final, jnp.ones(B)) * std + mean
            target = G[::STRIDE] + ahead[::STRIDE] * jax.lax.stop_gradient(v_end)
            return jnp.mean(((v - target) / std) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), length=steps)
        time_of_fresh = jnp.broadcast_to((jnp.arange(T) / T)[:, None], fresh.shape[:2])
        return values(params, fresh, time_of_fresh) * std + mean

    return fit


def time_only(gamma: float) -> Fit:
    """What is known without looking: the mean return-to-go of every time step."""

    def fit(data: Trajectory, z: jax.Array, z_final: jax.Array, fresh: jax.Array) -> jax.Array:
        mean = jnp.mean(go_to(signals_of(data), gamma), axis=1, keepdims=True)
        return jnp.broadcast_to(mean, (*fresh.shape[:2], mean.shape[-1]))

    return fit


def explained(G: np.ndarray, V: np.ndarray) -> float:
    """Mean over tasks [M, T, B] of the explained variance; a task whose G never varies is left out."""
    spread = np.var(G, axis=(1, 2))
    return float(np.mean((1 - np.var(G - V, axis=(1, 2)) / np.where(spread > 0, spread, 1))[spread > 1e-6]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    args = parser.parse_args()
    run = open_run(args.run_dir)
    learner, gamma = run.learner, run.learner.estimation.gamma
    tasks = learner.tasks.sample_batch(jax.random.key(11), TASKS, "held-out")

    def data(key: jax.Array, episodes: int) -> Trajectory:
        def one(task, k):
            return rollout(learner.env, learner.policy, run.state.theta, run.state.normaliser, task, k, episodes)

        return jax.jit(jax.vmap(one))(tasks, jax.random.split(key, TASKS))

    batch, fresh = data(jax.random.key(0), learner.meta.episodes), data(jax.random.key(1), FRESH)
    z, z_final, z_fresh = (run.state.normaliser(x) for x in (batch.obs, batch.final_obs, fresh.obs))
    G = np.asarray(jax.vmap(lambda d: go_to(signals_of(d), gamma))(fresh))
    half = G.shape[1] // 2
    critics = {"mean of the time step": time_only(gamma), "ridge regression": ridge(gamma)}
    critics |= {f"network {WIDTH}x{WIDTH}, {steps} Adam steps": network(gamma, steps) for steps in NETWORK_STEPS}
    rows = []
    for name, fit in critics.items():
        compiled = jax.jit(jax.vmap(fit)).lower(batch, z, z_final, z_fresh).compile()
        jax.block_until_ready(compiled(batch, z, z_final, z_fresh))
        begin = time.perf_counter()
        V = np.asarray(jax.block_until_ready(compiled(batch, z, z_final, z_fresh)))
        seconds = time.perf_counter() - begin
        scores = [explained(G[:, :half, :, i], V[:, :half, :, i]) for i in range(len(SIGNALS))]
        rows.append((name, *(f"{score:.3f}" for score in scores), f"{seconds:.3f}"))
        print(f"{name:32s} reward {scores[0]:6.3f}   cost {scores[1]:6.3f}   {seconds:7.3f} s", flush=True)
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("critic", "explained_reward", "explained_cost", "seconds"), *rows])


if __name__ == "__main__":
    main()
