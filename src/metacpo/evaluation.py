"""Evaluating a meta-policy: adapt it to tasks, judge every policy on the way, write the files of a run folder."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metacpo.adaptation import Adaptation, AdaptationSettings, adapt_tasks
from metacpo.config import Config, CostLimit, limits
from metacpo.folder import replacing
from metacpo.learner import TrainingSetup, TrainState
from metacpo.outcome_tables import budget_line as budget_line
from metacpo.outcome_tables import difference as difference
from metacpo.outcome_tables import table as table
from metacpo.outcome_tables import while_adapting as while_adapting
from metacpo.outcomes import COLUMNS, Evaluation, Row, SplitResult
from metacpo.policies import Policy
from metacpo.rollout import rollout
from metacpo.tasks import Task, with_cost_limit
from metacpo.training import open_run

EVALUATION = 0x5AFE  # folded into the seed: an evaluation never repeats the keys of a training with that seed
REPORT_SEED, REPORT_TASKS = 1000, 100  # what results are reported on: tasks that no preset was tuned on
PATH_TASKS = 3  # tasks a split whose paths are drawn: the unsafest before adaptation, the middle one, the safest
PATH_EPISODES = 2
_adapt_tasks = jax.jit(adapt_tasks, static_argnames=("setup", "settings"))


def evaluate(
    setup: TrainingSetup,
    state: TrainState,
    settings: AdaptationSettings,
    splits: Sequence[str],
    seed: int,
    task: Task | None = None,
    cost_limit: CostLimit | None = None,
) -> Evaluation:
    """Adapt to `settings.tasks` tasks of every split (or to `task` alone), and roll out paths before and after.

    seed draws tasks and rollouts; it is unrelated to the training's, whose keys it never meets. cost_limit
    replaces the limit of every task. Compiled once for a learner and its settings.
    """
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    results = []
    for index, split in enumerate(splits):
        task_key, adapt_key, path_key = jax.random.split(jax.random.fold_in(key, index), 3)
        if task is None:
            tasks = setup.tasks.sample_batch(task_key, settings.tasks, split)
        else:
            tasks = jax.tree.map(lambda x: x[None], task)
        if cost_limit is not None:
            tasks = with_cost_limit(tasks, cost_limit)
        with jax.default_matmul_precision("highest"):
            adaptation = _adapt_tasks(setup, state, tasks, adapt_key, settings)
            drawn = drawn_tasks(adaptation)
            few, phi = _chosen((tasks, adaptation.phi), drawn)
            paths = _paths(setup, state, few, phi, path_key)
        results.append(SplitResult(split, tasks, adaptation, drawn, paths))
    return Evaluation(tuple(results), setup.estimation.cost_measure, settings.episodes)


def drawn_tasks(adaptation: Adaptation) -> tuple[int, ...]:
    """The tasks whose paths tell most, by their cost before adaptation (ties: by number)."""
    cost = np.asarray(adaptation.stats.episode_cost[0]).sum(axis=-1)
    order = np.argsort(-cost, kind="stable")
    places = np.linspace(0, len(order) - 1, min(PATH_TASKS, len(order))).round().astype(int)
    return tuple(int(order[place]) for place in places)


def _chosen(tree: Any, tasks: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x[np.asarray(tasks)], tree)


@partial(jax.jit, static_argnames="setup")
def _paths(
    setup: TrainingSetup, state: TrainState, tasks: Task, phi: Float[Array, "M n"], key: Key[Array, ""]
) -> Float[Array, "M 2 T E 2"]:
    """Positions of the same starts under the meta-policy and under the adapted policy."""

    def path(policy_phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(setup.env, setup.policy, policy_phi, state.normaliser, task, key, PATH_EPISODES).position

    both = jnp.stack([jnp.broadcast_to(state.theta, phi.shape), phi], axis=1)
    keys = jax.random.split(key, phi.shape[0])
    return jax.vmap(jax.vmap(path, in_axes=(0, None, None)))(both, tasks, keys)


def write(run_dir: Path, evaluation: Evaluation) -> None:
    """adaptation.csv, paths.csv and layout.json of a run folder, each replaced as a whole."""
    write_rows(run_dir / "adaptation.csv", evaluation)
    with replacing(run_dir / "paths.csv") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "task", "stage", "episode", "t", "x", "y"))
        for result in evaluation.splits:
            for (index, stage, t, episode), x, y in _points(np.asarray(result.paths)):
                writer.writerow((result.split, result.drawn[index], stage, episode, t, f"{x:.4f}", f"{y:.4f}"))
    with replacing(run_dir / "layout.json") as file:
        layout = {result.split: _layout(result.tasks) for result in evaluation.splits}
        file.write(json.dumps(layout, indent=1) + "\n")


def write_rows(path: Path, evaluation: Evaluation) -> None:
    """A file of adaptation.csv's columns, replaced as a whole."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in evaluation.rows:
            writer.writerow(row.cells)


def _points(paths: np.ndarray) -> Iterator[tuple[tuple[int, str, int, int], float, float]]:
    for index, stage, t, episode in np.ndindex(*paths.shape[:-1]):
        x, y = paths[index, stage, t, episode]
        yield (index, ("before", "after")[stage], t, episode), float(x), float(y)


def _layout(tasks: Task) -> list[dict[str, int | float]]:
    """Every task's physical parameters (SI units), to draw them."""
    params = {name: np.asarray(value) for name, value in tasks.params.items()}
    count = tasks.cost_limit.shape[0]
    return [{"task": i} | {name: round(float(v[i]), 6) for name, v in params.items()} for i in range(count)]


def adaptation_settings(
    config: Config,
    costs: tuple[str, ...],
    seed: int,
    cost_limit: CostLimit | None = None,
    steps: int | None = None,
    tasks: int | None = None,
) -> AdaptationSettings:
    """A run's own settings of an adaptation with what is given instead, all of it checked as a config's is.

    costs: the names of its constraints.
    """
    usual, limit = config.adaptation, config.cost_limit if cost_limit is None else cost_limit
    steps, tasks = (usual.steps if steps is None else steps), (usual.tasks if tasks is None else tasks)
    settings = replace(usual, steps=steps, tasks=tasks)
    checked = replace(config, adaptation=settings, cost_limit=limit, seed=seed)
    limits(checked.cost_limit, costs)
    return settings


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy after adaptation to one task, and what it earned and cost after 0..k updates."""

    policy: Policy
    curve: tuple[Row, ...]


def adapt(
    run_dir: Path | str,
    task: Mapping[str, object] | None = None,
    split: str = "held-out",
    steps: int | None = None,
    cost_limit: CostLimit | None = None,
    seed: int = 0,
) -> AdaptedPolicy:
    """Adapt a trained run to one task: given by parameters (e.g. {"radius": 1.3}), or drawn from `split`.

    `steps` and `cost_limit` (one for all constraints, or one for each) are the run's own where they are not given.
    Raises ConfigError or TaskError, whose one line names the field, for what is not allowed.
    """
    run = open_run(run_dir)
    wanted = None if task is None else run.setup.tasks.make(task)
    settings = adaptation_settings(run.config, run.setup.env.cost_names, seed, cost_limit, steps, tasks=1)
    evaluation = evaluate(run.setup, run.state, settings, (split,), seed, wanted, cost_limit)
    phi = evaluation.splits[0].adaptation.phi[0]
    return AdaptedPolicy(Policy(run.setup.policy, phi, run.state.normaliser), tuple(evaluation.rows))


def load_policy(run_dir: Path | str) -> Policy:
    """The meta-policy of a run at its newest checkpoint, normaliser inside."""
    run = open_run(run_dir)
    return Policy(run.setup.policy, run.state.theta, run.state.normaliser)
