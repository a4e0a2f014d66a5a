"""How good and how safe adapted policies are: tables, files of a run folder, paths to look at."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metacpo.adaptation import Adaptation, AdaptationSettings, adapt_tasks
from metacpo.learner import Learner, TrainState
from metacpo.rollout import rollout
from metacpo.tasks import Task

COLUMNS = ("split", "task", "step", "return", "episode_cost", "discounted_cost", "cost_limit", "satisfied")
PATH_TASKS = 3  # tasks a split whose paths are drawn
PATH_EPISODES = 2


@dataclass(frozen=True)
class SplitResult:
    """One split: its tasks [M], their adaptation, and paths [M', 2 (before, after), T, E, 2] in metres."""

    split: str
    tasks: Task
    adaptation: Adaptation
    paths: Float[Array, "M 2 T E 2"]


@dataclass(frozen=True)
class Row:
    """One line of adaptation.csv: means over the fresh episodes of one task after `step` updates."""

    split: str
    task: int
    step: int
    episode_return: float
    episode_cost: float
    discounted_cost: float
    cost_limit: float
    satisfied: bool


def evaluate(
    learner: Learner,
    state: TrainState,
    tasks: dict[str, Task],
    key: Key[Array, ""],
    settings: AdaptationSettings,
) -> list[SplitResult]:
    """Adapt to every task of every split and roll out paths before and after. One compilation per shape."""
    adapt = eqx.filter_jit(lambda batch, k: adapt_tasks(learner, state, batch, k, settings))
    draw = eqx.filter_jit(lambda batch, phi, k: _paths(learner, state, batch, phi, k))
    results = []
    for index, (split, batch) in enumerate(tasks.items()):
        adapt_key, path_key = jax.random.split(jax.random.fold_in(key, index))
        adaptation = adapt(batch, adapt_key)
        few = jax.tree.map(lambda x: x[:PATH_TASKS], batch)
        paths = draw(few, adaptation.phi[:PATH_TASKS], path_key)
        results.append(SplitResult(split, batch, adaptation, paths))
    return results


def _paths(
    learner: Learner, state: TrainState, tasks: Task, phi: Float[Array, "M n"], key: Key[Array, ""]
) -> Float[Array, "M 2 T E 2"]:
    """Positions of the same starts under the meta-policy and under the adapted policy."""

    def path(policy_phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(
            learner.env, learner.policy, policy_phi, state.normaliser, task, key, PATH_EPISODES
        ).position

    both = jnp.stack([jnp.broadcast_to(state.theta, phi.shape), phi], axis=1)
    keys = jax.random.split(key, phi.shape[0])
    return jax.vmap(jax.vmap(path, in_axes=(0, None, None)))(both, tasks, keys)


def rows(results: Sequence[SplitResult], cost_measure: str) -> Iterator[Row]:
    """adaptation.csv line by line; `satisfied` judges the cost that the limit limits."""
    for result in results:
        stats = jax.tree.map(np.asarray, result.adaptation.stats)
        limits = np.asarray(result.tasks.cost_limit)
        limited = stats.episode_cost if cost_measure == "episode" else stats.discounted_cost
        for task in range(limits.shape[0]):
            for step in range(stats.episode_return.shape[0]):
                yield Row(
                    split=result.split,
                    task=task,
                    step=step,
                    episode_return=float(stats.episode_return[step, task]),
                    episode_cost=float(stats.episode_cost[step, task].sum()),
                    discounted_cost=float(stats.discounted_cost[step, task].sum()),
                    cost_limit=float(limits[task].sum()),
                    satisfied=bool(np.all(limited[step, task] <= limits[task])),
                )


def write(run_dir: Path, results: Sequence[SplitResult], cost_measure: str) -> None:
    """adaptation.csv, paths.csv and layout.json of a run folder (rewritten whole)."""
    with (run_dir / "adaptation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows(results, cost_measure):
            numbers = (row.episode_return, row.episode_cost, row.discounted_cost, row.cost_limit)
            writer.writerow(
                [row.split, row.task, row.step, *(f"{x:.6g}" for x in numbers), int(row.satisfied)]
            )
    with (run_dir / "paths.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "task", "stage", "episode", "t", "x", "y"))
        for result in results:
            for (task, stage, t, episode), x, y in _points(np.asarray(result.paths)):
                writer.writerow((result.split, task, stage, episode, t, f"{x:.4f}", f"{y:.4f}"))
    layout = {result.split: _layout(result.tasks) for result in results}
    (run_dir / "layout.json").write_text(json.dumps(layout, indent=1) + "\n")


def _points(paths: np.ndarray) -> Iterator[tuple[tuple[int, str, int, int], float, float]]:
    for task, stage, t, episode in np.ndindex(*paths.shape[:-1]):
        x, y = paths[task, stage, t, episode]
        yield (task, ("before", "after")[stage], t, episode), float(x), float(y)


def _layout(tasks: Task) -> list[dict[str, float]]:
    """Every task's physical parameters, to draw them."""
    params = {name: np.asarray(value) for name, value in tasks.params.items()}
    count = tasks.cost_limit.shape[0]
    return [{"task": i} | {name: round(float(v[i]), 6) for name, v in params.items()} for i in range(count)]
