"""Which critic for a task that is met for a few batches only? Judged by what the gradients that it gives are worth.

    python benchmarks/critics.py RUN_DIR [RUN_DIR …] [--episodes B] [--references R] [--out benchmarks/critics.csv]

What a critic is for is the gradient: g of the return, b of the limited cost. Each is estimated from one batch of
TASKS held-out tasks under the run's trained policy, with the run's other settings, and averaged over the tasks. Then
the policy is moved along it, both ways, by STEP in parameter space, and fresh episodes tell the truth:

    slope      (J(θ + ε d) − J(θ − ε d))/2ε, d the unit vector along the gradient; the same random numbers both ways.
               The longer the better; 0: the gradient points nowhere.
    halves     cosine between the gradients of two batches, mean over pairs: 1 without noise, 0 if all is noise
    cosine     between a task's gradient of one batch and its reference, mean over the tasks and batches with a signal:
               REINFORCE with a baseline on R further batches of 10·B episodes (γ = λ = 1 under the episode measure:
               whole sums, nothing bootstrapped; under the discounted one the run's γ with λ = 1). 1: what an inner
               update should see.
               `reference` is the cosine between two halves of those batches. R = 0 (the default) leaves both out.
    fit        explained variance of the critic on fresh episodes, median over the tasks whose signal varies
    seconds    one compiled call: fit and gradients of all tasks, median

For the return the larger slope is the better gradient, for the cost as well: against it the cost falls.
"""

import argparse
import csv
import dataclasses
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from metacpo.algorithms.trust_region import linearise
from metacpo.estimation import EstimationSettings, make_batch
from metacpo.estimation.batch import episode_stats
from metacpo.estimation.critics import CRITICS, CriticName, fit_values
from metacpo.estimation.measures import limited
from metacpo.estimation.returns import returns_to_go
from metacpo.rollout import Trajectory, rollout
from metacpo.training.runs import open_run
from metacpo.training.setup import TrainingSetup

TASKS, EPISODES, BATCHES = 8, 24, 3
JUDGES = 60  # episodes per task, on which a moved policy is measured
STEP = 0.2
HEADER = ("run", "signal", "critic", "gamma", "lam", "slope", "halves", "fit", "seconds", "cosine", "reference")


class Judge:
    """The trained policy of a run, its tasks, and the batches that every critic sees."""

    def __init__(self, run_dir: Path, episodes: int = EPISODES):
        run = open_run(run_dir)
        self.setup: TrainingSetup = run.setup
        self.theta, self.normaliser = run.state.theta, run.state.normaliser
        self.tasks = self.setup.tasks.sample_batch(jax.random.key(11), TASKS, "held-out")
        self.roll = jax.jit(self._roll, static_argnums=2)
        self.measure = jax.jit(self._measure)
        self.episodes = episodes
        self.batches = [self.roll(self.theta, jax.random.key(i), episodes) for i in range(BATCHES)]
        self.fresh = self.roll(self.theta, jax.random.key(1000), episodes)

    def _roll(self, theta: jax.Array, key: jax.Array, episodes: int) -> Trajectory:
        def one(task, k):
            return rollout(self.setup.env, self.setup.policy, theta, self.normaliser, task, k, episodes)

        return jax.vmap(one)(self.tasks, jax.random.split(key, TASKS))

    def _measure(self, theta: jax.Array) -> jax.Array:
        """(return, limited cost) of θ, mean over tasks and fresh episodes that are the same for every θ."""
        settings = self.setup.estimation
        data = self._roll(theta, jax.random.key(2000), JUDGES)
        stats = jax.vmap(lambda d, limit: episode_stats(d, limit, settings))(data, self.tasks.cost_limit)
        cost = limited(settings.cost_measure, stats.episode_cost, stats.discounted_cost)
        return jnp.stack([jnp.mean(stats.episode_return), jnp.mean(cost)])

    def estimator(self, settings: EstimationSettings) -> Callable[[Trajectory], jax.Array]:
        """Episodes of every task ↦ (−g, b) of every task, [M, 2, n]; compiled."""

        def one(task, data: Trajectory) -> jax.Array:
            batch, _ = make_batch(data, self.normaliser, task.cost_limit, settings)
            g, b, _ = linearise(self.setup.policy, self.theta, batch)  # pyright: ignore[reportGeneralTypeIssues]
            return jnp.stack([-g, jnp.sum(b, axis=0)])

        return jax.jit(lambda data: jax.vmap(one)(self.tasks, data))

    def references(self, count: int) -> np.ndarray:
        """Two halves of the reference, [2, M, 2, n]."""
        settings = self.setup.estimation
        whole = dataclasses.replace(settings, critic="ridge", cost_critic="ridge", gamma=1.0, lam=1.0, cost_lam=1.0)
        whole = dataclasses.replace(
            whole, **limited(settings.cost_measure, {"cost_gamma": 1.0}, {"gamma": settings.gamma})
        )
        estimate, halves = self.estimator(whole), ([], [])
        for i in range(count):
            data = self.roll(self.theta, jax.random.key(3000 + i), 10 * self.episodes)
            halves[i % 2].append(np.asarray(estimate(data)))
        return np.stack([np.mean(half, axis=0) for half in halves])

    def gradients(self, settings: EstimationSettings) -> tuple[np.ndarray, float]:
        """(−g, b) of every batch and task, [batches, M, 2, n], and the seconds of one batch."""
        one_batch = self.estimator(settings)
        jax.block_until_ready(one_batch(self.batches[0]))
        found, seconds = [], []
        for data in self.batches:
            begin = time.perf_counter()
            found.append(np.asarray(one_batch(data)))
            seconds.append(time.perf_counter() - begin)
        return np.stack(found), statistics.median(seconds)

    def cosines(self, gradients: np.ndarray, halves: np.ndarray, signal: int) -> tuple[float, float]:
        """(cosine, reference) of gradients [batches, M, n] and halves [2, M, n]; of tasks that have a signal."""
        parts = [data.cost if signal else data.reward for data in self.batches]
        seen = np.stack([np.any(np.asarray(x) != 0, axis=tuple(range(1, x.ndim))) for x in parts])
        first, second = halves
        return (
            float(np.mean(cosine(gradients, (first + second)[None])[seen])),
            float(np.mean(cosine(first, second)[seen.any(axis=0)])),
        )

    def slope(self, gradient: np.ndarray, signal: int) -> float:
        """Measured slope of the signal (0 return, 1 cost) along the gradient."""
        move = STEP * gradient / np.linalg.norm(gradient)
        ahead, back = self.measure(self.theta + move), self.measure(self.theta - move)
        return float(ahead[signal] - back[signal]) / (2 * STEP)

    def fit(self, critic: CriticName, signal: int, gamma: float) -> float:
        """1 − Var(G − V)/Var(G) on fresh episodes. They lie beside the batch, marked invalid, so nothing fits them."""

        @jax.jit
        def one(data: Trajectory, fresh: Trajectory) -> tuple[jax.Array, jax.Array]:
            unseen = dataclasses.replace(fresh, valid=jnp.zeros_like(fresh.valid))
            ends = ("terminated", "final_obs", "nonfinite")  # of whole episodes; the others have the time first
            both = Trajectory(
                **{
                    f.name: jnp.concatenate(
                        [getattr(data, f.name), getattr(unseen, f.name)], 0 if f.name in ends else 1
                    )
                    for f in dataclasses.fields(Trajectory)
                }
            )
            values = both.reward if signal == 0 else jnp.sum(both.cost, axis=-1)
            z, z_final = self.normaliser(both.obs), self.normaliser(both.final_obs)
            v, _ = fit_values(both, z, z_final, values[..., None], jnp.array([gamma]), (critic,))
            G = jax.vmap(returns_to_go, in_axes=(1, None), out_axes=1)(values, gamma)
            half = G.shape[0] // 2  # later, G is cut off by the end of the episode
            return G[:half, self.episodes :], v[:half, self.episodes :, 0]

        shares = []
        for i in range(TASKS):
            data, fresh = (
                jax.tree.map(lambda x, i=i: x[i][None] if x.ndim == 1 else x[i], d)
                for d in (self.batches[0], self.fresh)
            )
            G, V = map(np.asarray, one(data, fresh))
            if np.var(G) > 1e-6:
                shares.append(1 - np.var(G - V) / np.var(G))
        return statistics.median(shares) if shares else float("nan")


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of gradients [..., n]; 0 where one of them is 0."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / np.where(norms > 0, norms, 1)


def contenders(settings: EstimationSettings) -> list[tuple[int, CriticName, EstimationSettings]]:
    """(signal, critic, settings): every critic for the return, and with two λ for the cost."""
    found = []
    for critic in CRITICS:
        found.append((0, critic, dataclasses.replace(settings, critic=critic)))
    for critic in CRITICS:
        for lam in (0.99, 0.95):
            found.append((1, critic, dataclasses.replace(settings, cost_critic=critic, cost_lam=lam)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="B, of a batch, per task")
    parser.add_argument("--references", type=int, default=0, help="batches of 10 B episodes; 0: no cosine")
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    args = parser.parse_args()
    print(("{:28s}" + "{:>10s}" * 10).format(*HEADER))
    rows = []
    for run_dir in args.run_dirs:
        judge = Judge(run_dir, args.episodes)
        halves_of_reference = judge.references(args.references) if args.references else None
        for signal, critic, settings in contenders(judge.setup.estimation):
            gamma = (settings.gamma, settings.cost_gamma)[signal]
            gradients, seconds = judge.gradients(settings)
            mean = gradients[:, :, signal].mean(axis=1)
            unit = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
            halves = statistics.mean(float(a @ b) for a, b in combinations(unit, 2))
            slope = statistics.mean(judge.slope(gradient, signal) for gradient in unit)
            figures = (slope, halves, judge.fit(critic, signal, gamma), seconds)
            if halves_of_reference is not None:
                figures += judge.cosines(gradients[:, :, signal], halves_of_reference[:, :, signal], signal)
            else:
                figures += ("", "")
            setting = (gamma, (settings.lam, settings.cost_lam)[signal])
            name = ("return", "cost")[signal]
            rows.append((run_dir.name, name, critic, *setting, *(x if x == "" else f"{x:.3g}" for x in figures)))
            print(("{:28s}" + "{:>10}" * 10).format(*rows[-1]), flush=True)
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
