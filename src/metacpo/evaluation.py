"""How good and how safe adapted policies are: tables, files of a run folder, paths to look at."""

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
from rich.table import Table

from metacpo.adaptation import Adaptation, AdaptationSettings, adapt_tasks
from metacpo.folder import replacing
from metacpo.learner import Learner, TrainState
from metacpo.policies import Policy
from metacpo.rollout import rollout
from metacpo.tasks import Task, with_cost_limit
from metacpo.training import open_run

EVALUATION = 0x5AFE  # folded into the seed: an evaluation never repeats the keys of a training with that seed
COLUMNS = ("split", "task", "step", "return", "episode_cost", "discounted_cost", "cost_limit", "satisfied")
PATH_TASKS = 3  # tasks a split whose paths are drawn: the unsafest before adaptation, the middle one, the safest
PATH_EPISODES = 2
_adapt_tasks = jax.jit(adapt_tasks, static_argnames=("learner", "settings"))


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
    satisfied: bool  # whether the cost that the limit limits is within it


@dataclass(frozen=True)
class SplitResult:
    """One split: its tasks [M] and their adaptation; paths [D, 2 (before, after), T, E, 2] of tasks `drawn`, metres."""

    split: str
    tasks: Task
    adaptation: Adaptation
    drawn: tuple[int, ...]
    paths: Float[Array, "D 2 T E 2"]


@dataclass(frozen=True)
class Evaluation:
    """Adaptation on all tasks of some splits; `cost_measure` says which cost the limits limit."""

    splits: tuple[SplitResult, ...]
    cost_measure: str
    episodes: int  # that an update sees

    @property
    def rows(self) -> list[Row]:
        """adaptation.csv, line by line."""
        return [row for result in self.splits for row in _rows(result, self.cost_measure)]


def evaluate(
    learner: Learner,
    state: TrainState,
    settings: AdaptationSettings,
    splits: Sequence[str],
    seed: int,
    task: Task | None = None,
    cost_limit: float | None = None,
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
            tasks = learner.tasks.sample_batch(task_key, settings.tasks, split)
        else:
            tasks = jax.tree.map(lambda x: x[None], task)
        if cost_limit is not None:
            tasks = with_cost_limit(tasks, cost_limit)
        with jax.default_matmul_precision("highest"):
            adaptation = _adapt_tasks(learner, state, tasks, adapt_key, settings)
            drawn = drawn_tasks(adaptation)
            few, phi = _chosen((tasks, adaptation.phi), drawn)
            paths = _paths(learner, state, few, phi, path_key)
        results.append(SplitResult(split, tasks, adaptation, drawn, paths))
    return Evaluation(tuple(results), learner.estimation.cost_measure, settings.episodes)


def drawn_tasks(adaptation: Adaptation) -> tuple[int, ...]:
    """The tasks whose paths tell most, by their cost before adaptation (ties: by number)."""
    cost = np.asarray(adaptation.stats.episode_cost[0]).sum(axis=-1)
    order = np.argsort(-cost, kind="stable")
    places = np.linspace(0, len(order) - 1, min(PATH_TASKS, len(order))).round().astype(int)
    return tuple(int(order[place]) for place in places)


def _chosen(tree: Any, tasks: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x[np.asarray(tasks)], tree)


@partial(jax.jit, static_argnames="learner")
def _paths(
    learner: Learner, state: TrainState, tasks: Task, phi: Float[Array, "M n"], key: Key[Array, ""]
) -> Float[Array, "M 2 T E 2"]:
    """Positions of the same starts under the meta-policy and under the adapted policy."""

    def path(policy_phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(learner.env, learner.policy, policy_phi, state.normaliser, task, key, PATH_EPISODES).position

    both = jnp.stack([jnp.broadcast_to(state.theta, phi.shape), phi], axis=1)
    keys = jax.random.split(key, phi.shape[0])
    return jax.vmap(jax.vmap(path, in_axes=(0, None, None)))(both, tasks, keys)


def _rows(result: SplitResult, cost_measure: str) -> Iterator[Row]:
    stats = jax.tree.map(np.asarray, result.adaptation.stats)
    limits = np.asarray(result.tasks.cost_limit)
    limited = stats.episode_cost if cost_measure == "episode" else stats.discounted_cost
    for task, step in np.ndindex(limits.shape[0], stats.episode_return.shape[0]):
        yield Row(
            split=result.split,
            task=task,
            step=step,
            episode_return=float(stats.episode_return[step, task]),
            episode_cost=float(stats.episode_cost[step, task].sum()),
            discounted_cost=float(stats.discounted_cost[step, task].sum()),
            cost_limit=float(limits[task].sum()),
            # Where every world broke in its first step, nothing was paid and nothing was shown to be safe.
            satisfied=bool(np.all(limited[step, task] <= limits[task]) and stats.length[step, task] > 0),
        )


def table(evaluation: Evaluation, trained: int | None = None) -> Table:
    """Means over the tasks of each split after every update; `trained`: steps that the training used, if known."""
    measure = evaluation.cost_measure
    shown = Table(title=f"adaptation (the limit is on the {measure} cost)", caption=budget_line(evaluation, trained))
    for name in ("split", "step", "return", "episode cost", "discounted cost", "limit", "tasks within"):
        shown.add_column(name, justify="left" if name == "split" else "right")
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in evaluation.rows:
        groups.setdefault((row.split, row.step), []).append(row)
    for (split, step), rows in groups.items():
        means = [
            float(np.mean([getattr(row, name) for row in rows]))
            for name in ("episode_return", "episode_cost", "discounted_cost", "cost_limit")
        ]
        digits = 1 if means[-1] >= 5 else 3  # families differ in scale
        within = sum(row.satisfied for row in rows)
        shown.add_row(split, str(step), *(f"{mean:.{digits}f}" for mean in means), f"{within}/{len(rows)}")
    return shown


def budget_line(evaluation: Evaluation, trained: int | None) -> str:
    """Environment steps behind the table: of the training, if known, and of the adaptation to one task."""
    lengths = [np.asarray(result.adaptation.stats.length)[:-1] for result in evaluation.splits]  # [K, M] each
    parts = [] if trained is None else [f"trained with {trained:,} steps"]
    if updates := len(lengths[0]):
        steps = evaluation.episodes * float(np.mean(np.concatenate(lengths)))
        whose = "the update" if updates == 1 else f"each of {updates} updates"
        parts.append(f"{whose} of a task sees {evaluation.episodes} episodes, {steps:,.0f} steps")
    return "; ".join(parts)


def while_adapting(evaluation: Evaluation) -> list[str]:
    """One line a split about the policies before the last update: a robot that adapts has to live with these too."""
    lines = []
    for result in evaluation.splits:
        rows = list(_rows(result, evaluation.cost_measure))
        last = max(row.step for row in rows)
        if before := [row for row in rows if row.step < last]:
            within = sum(row.satisfied for row in before)
            excess = [max(_limited(row, evaluation.cost_measure) - row.cost_limit, 0.0) for row in before]
            lines.append(
                f"{result.split}, updates 0 to {last - 1}: {within} of {len(before)} policies within the limit, "
                f"mean excess {np.mean(excess):.3g}, worst {max(excess):.3g}"
            )
    return lines


def difference(here: Evaluation, there: Evaluation, names: tuple[str, str]) -> list[str]:
    """One line a split: what the adapted policies earn and cost in the second evaluation beside the first."""
    lines = []
    for one, other in zip(here.splits, there.splits, strict=True):
        last = [[row for row in _rows(split, here.cost_measure)][-1].step for split in (one, other)]
        pairs = [
            [r for r in _rows(s, here.cost_measure) if r.step == k] for s, k in zip((one, other), last, strict=True)
        ]
        earned, paid = (
            [float(np.mean([getattr(row, name) for row in rows])) for rows in pairs]
            for name in ("episode_return", "episode_cost")
        )
        within = [sum(row.satisfied for row in rows) for rows in pairs]
        lines.append(
            f"{one.split}, {names[1]} against {names[0]}: return {earned[1]:.3g} against {earned[0]:.3g} "
            f"({earned[1] - earned[0]:+.2g}), episode cost {paid[1]:.3g} against {paid[0]:.3g} "
            f"({paid[1] - paid[0]:+.2g}), within the limit {within[1]} against {within[0]} of {len(pairs[0])}"
        )
    return lines


def _limited(row: Row, cost_measure: str) -> float:
    """The cost that the limit limits, summed over constraints."""
    return row.episode_cost if cost_measure == "episode" else row.discounted_cost


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
            numbers = (row.episode_return, row.episode_cost, row.discounted_cost, row.cost_limit)
            writer.writerow([row.split, row.task, row.step, *(f"{x:.6g}" for x in numbers), int(row.satisfied)])


def _points(paths: np.ndarray) -> Iterator[tuple[tuple[int, str, int, int], float, float]]:
    for index, stage, t, episode in np.ndindex(*paths.shape[:-1]):
        x, y = paths[index, stage, t, episode]
        yield (index, ("before", "after")[stage], t, episode), float(x), float(y)


def _layout(tasks: Task) -> list[dict[str, int | float]]:
    """Every task's physical parameters (SI units), to draw them."""
    params = {name: np.asarray(value) for name, value in tasks.params.items()}
    count = tasks.cost_limit.shape[0]
    return [{"task": i} | {name: round(float(v[i]), 6) for name, v in params.items()} for i in range(count)]


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy after adaptation to one task, and what it earned and cost after 0..k updates."""

    policy: Policy
    curve: tuple[Row, ...]


def adapt(
    run_dir: Path | str,
    task: Mapping[str, object] | None = None,
    split: str = "held-out",
    steps: int = 5,
    cost_limit: float | None = None,
    seed: int = 0,
) -> AdaptedPolicy:
    """Adapt a trained run to one task: given by parameters (e.g. {"radius": 1.3}), or drawn from `split`."""
    run = open_run(run_dir)
    wanted = None if task is None else run.learner.tasks.make(task)
    settings = replace(run.config.adaptation, steps=steps, tasks=1)
    evaluation = evaluate(run.learner, run.state, settings, (split,), seed, wanted, cost_limit)
    phi = evaluation.splits[0].adaptation.phi[0]
    return AdaptedPolicy(Policy(run.learner.policy, phi, run.state.normaliser), tuple(evaluation.rows))


def load_policy(run_dir: Path | str) -> Policy:
    """The meta-policy of a run at its newest checkpoint, normaliser inside."""
    run = open_run(run_dir)
    return Policy(run.learner.policy, run.state.theta, run.state.normaliser)
