"""Does the meta-gradient carry signal, and what raises it? Judged at equal environment steps, at a trained θ.

    python benchmarks/agreement.py RUN_DIR [RUN_DIR …] [--draws R] [--out benchmarks/agreement.csv]

Every variant computes the meta-gradients of F (the adapted loss) and of G (the adapted policies' mean excess) from R
independent draws of tasks and episodes, as many steps each as the run's own meta-iteration has:

    own             the run's settings: M tasks, B episodes a task and inner step
    tasks-2, -4     twice, four times the tasks, with as many fewer episodes
    baseline        one critic for the episodes of all tasks, instead of one a task
    reuse           inner update k on all batches D⁰..D^k, with importance weights π_φᵏ/π_φʲ of every action
    common-tasks    the same random numbers in all tasks of a draw (resets and noise of the actions)
    common-steps    the same random numbers in all inner steps of a draw

halves: the cosine between two halves of a draw's tasks (what `Meta/Agreement…` logs), median over draws. draws: the
cosine between the gradients of two draws, median over pairs; it is what an outer step has. Each with its quartiles.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from metacpo.algorithms.inner_loop import InnerLoop, Sampler, run_inner_loop
from metacpo.algorithms.inner_state import pack
from metacpo.algorithms.meta_objective import MetaObjective
from metacpo.algorithms.policy_update import update
from metacpo.envs.tasks import Task
from metacpo.estimation import Batch, make_batch, shared_cost_values
from metacpo.rollout import rollout
from metacpo.training.runs import open_run
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

HEADER = ("run", "variant", "tasks", "episodes", "env_steps", "gradient")
FIGURES = ("halves", "halves_q1", "halves_q3", "draws", "draws_q1", "draws_q3")


@dataclass(frozen=True)
class Variant:
    """How the data of a meta-gradient are drawn and used."""

    name: str
    more_tasks: int = 1
    shared_critic: bool = False
    reuse: bool = False
    common_tasks: bool = False
    common_steps: bool = False


VARIANTS = (
    Variant("own"),
    Variant("tasks-2", more_tasks=2),
    Variant("tasks-4", more_tasks=4),
    Variant("baseline", shared_critic=True),
    Variant("reuse", reuse=True),
    Variant("common-tasks", common_tasks=True),
    Variant("common-steps", common_steps=True),
)


def sampler(setup: TrainingSetup, state: TrainState, episodes: int, key: Key[Array, ""], how: Variant) -> Sampler:
    """`setup.sampler` with the variant's random numbers and critics."""
    settings = setup.estimation

    def roll(phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(setup.env, setup.policy, phi, state.normaliser, task, key, episodes)

    def estimate(data, limit, reward_values, cost_values):
        batch, stats = make_batch(data, state.normaliser, limit, settings, cost_values)
        if reward_values is None:
            return batch, stats
        # Reward in the place of a cost: the same advantages from another critic.
        as_cost = eqx.tree_at(lambda D: D.cost, data, data.reward[..., None])
        same = replace(settings, cost_gamma=settings.gamma, cost_lam=settings.lam, cost_measure="episode")
        swapped, _ = make_batch(as_cost, state.normaliser, limit[:1], same, reward_values)
        return eqx.tree_at(lambda D: D.reward_advantage, batch, swapped.cost_advantage[:, 0]), stats

    def sample(tasks: Task, phi: Float[Array, "M n"], keys: Key[Array, " M"]):
        M = phi.shape[0]
        keys = jax.random.split(key, M) if how.common_steps else keys
        keys = jnp.broadcast_to(keys[0], (M,)) if how.common_tasks else keys
        data = jax.vmap(roll)(phi, tasks, keys)
        reward_values = cost_values = None
        if how.shared_critic:
            as_cost = eqx.tree_at(lambda D: D.cost, data, data.reward[..., None])
            of_reward = replace(settings, cost_gamma=settings.gamma, cost_critic=settings.critic)
            reward_values = shared_cost_values(as_cost, state.normaliser, of_reward)
            cost_values = shared_cost_values(data, state.normaliser, settings)
        return jax.vmap(estimate)(data, tasks.cost_limit, reward_values, cost_values)

    return sample


def collect_reusing(
    setup: TrainingSetup, state: TrainState, sample: Sampler, tasks: Task, key: Key[Array, ""], meta
) -> InnerLoop:
    """`run_inner_loop`, but update k sees D⁰..D^k: one batch of all their steps, c and its margins those of D^k."""
    K, policy, rule = meta.steps, setup.policy, setup.algorithm.inner
    first_keys, *keys = (jax.random.split(k, meta.tasks) for k in jax.random.split(key, K + 1))
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (meta.tasks, *x.shape)), (state.theta, state.inner_state))
    batch, stats = sample(tasks, start[0], first_keys)
    empty = jax.tree.map(lambda x: jnp.zeros((K, *x.shape), x.dtype), batch)

    def inner_step(carry, per_step):
        phi, inner_state, memory, batch = carry
        k, keys = per_step
        memory = jax.tree.map(lambda all, one: all.at[k].set(one), memory, batch)
        together = joined(memory, batch, k)
        phi, inner_state, updates = jax.vmap(lambda p, y, D: update(policy, p, y, D, rule))(phi, inner_state, together)
        fresh, stats = sample(tasks, phi, keys)
        return (phi, inner_state, memory, fresh), (together, updates, stats)

    carry, (batches, updates, later) = jax.lax.scan(
        inner_step, (*start, empty, batch), (jnp.arange(K), jnp.stack(keys))
    )
    stats = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), stats, later)
    return InnerLoop(batches, updates, stats, carry[0], carry[3])


def joined(memory: Batch, newest: Batch, k: Int32[Array, ""]) -> Batch:
    """D⁰..D^k of every task as one batch, the same weight for each; what is not yet there weighs nothing."""
    K = memory.weight.shape[0]
    counts = (jnp.arange(K) <= k)[:, None, None] / (k + 1.0)

    def steps(x: Array) -> Array:  # [K, M, N, ...] as [M, K·N, ...]
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])

    flat = {name: steps(getattr(memory, name)) for name in ("z", "action", "log_prob", "reward_advantage")}
    flat |= {name: steps(getattr(memory, name)) for name in ("cost_advantage", "contrast")}
    flat |= {name: steps(counts * getattr(memory, name)) for name in ("weight", "cost_weight")}
    return Batch(**flat, c=newest.c, margin=newest.margin, outer_margin=newest.outer_margin)


def gradients(
    setup: TrainingSetup, state: TrainState, how: Variant, draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(∇F, ∇G) [2, n] and the cosines of halves [2] of every draw."""
    own = setup.meta
    meta = replace(own, tasks=own.tasks * how.more_tasks, episodes=own.episodes // how.more_tasks)
    objective = MetaObjective(setup.policy, setup.algorithm.inner)

    @jax.jit
    def one(key: Key[Array, ""]):
        task_key, common_key, loop_key = jax.random.split(key, 3)
        tasks = setup.tasks.sample_batch(task_key, meta.tasks)
        sample = sampler(setup, state, meta.episodes, common_key, how)
        if how.reuse:
            loop = collect_reusing(setup, state, sample, tasks, loop_key, meta)
        else:
            loop = run_inner_loop(
                setup.policy, state.theta, state.inner_state, sample, tasks, loop_key, meta, setup.algorithm.inner
            )
        found = objective.rows(pack(state.theta, state.inner_state, ()), state.theta, state.inner_state, loop)
        return jnp.stack([found.g, jnp.sum(found.b, axis=0)]), found.agreement

    for i in range(draws):
        rows, halves = one(jax.random.key(i))
        yield np.asarray(rows, np.float64), np.asarray(halves)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-300))


def quartiles(values: list[float] | np.ndarray) -> list[str]:
    return [f"{np.quantile(values, q):.3f}" for q in (0.5, 0.25, 0.75)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/agreement.csv"))
    args = parser.parse_args()
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*HEADER, *FIGURES))
        for run_dir in args.run_dirs:
            run = open_run(run_dir)
            meta = run.setup.meta
            for how in VARIANTS:
                drawn = list(gradients(run.setup, run.state, how, args.draws))
                steps = meta.tasks * meta.episodes * (meta.steps + 1) * run.setup.env.episode_length
                sizes = (meta.tasks * how.more_tasks, meta.episodes // how.more_tasks, steps)
                for i, name in enumerate(("return", "cost")):
                    pairs = [cosine(a[0][i], b[0][i]) for a, b in combinations(drawn, 2)]
                    halves = [float(agreement[i]) for _, agreement in drawn]
                    line = (run_dir.name, how.name, *sizes, name, *quartiles(halves), *quartiles(pairs))
                    writer.writerow(line)
                    print(*line, flush=True)
                file.flush()
                jax.clear_caches()


if __name__ == "__main__":
    main()
