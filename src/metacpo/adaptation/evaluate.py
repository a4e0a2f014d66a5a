"""Evaluating a meta-policy: adapt it to tasks, judge every policy on the way, write the files of a run folder."""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from metacpo.adaptation.adapt import Adaptation, adapt_tasks
from metacpo.adaptation.outcomes import Evaluation, SplitResult
from metacpo.adaptation.paths import record_paths
from metacpo.config.limits import CostLimit
from metacpo.config.sections import AdaptationSettings
from metacpo.envs.tasks import Task, with_cost_limit
from metacpo.runtime.devices import devices_in_use, on_devices, results_whole
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState

EVALUATION = 0x5AFE  # folded into the seed: an evaluation never repeats the keys of a training with that seed
REPORT_SEED, REPORT_TASKS = 1000, 100  # what results are reported on: tasks that no preset was tuned on
PATH_TASKS = 3  # tasks a split whose paths are drawn: the unsafest before adaptation, the middle one, the safest
GIVEN_TASK = "given task"  # in the place of a split
Adapt = Callable[[TrainState, Task, Key[Array, ""]], Adaptation]
_EXECUTABLES: dict[Hashable, Adapt] = {}  # the newest
MOST_EXECUTABLES = 8


def evaluate(
    setup: TrainingSetup,
    state: TrainState,
    settings: AdaptationSettings,
    splits: Sequence[str],
    seed: int,
    task: Task | None = None,
    cost_limit: CostLimit | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Adapt to `settings.tasks` tasks of every split, or to `task` alone, which is of no split and called GIVEN_TASK;
    roll out paths before and after.

    seed draws tasks and rollouts; it is unrelated to the training's, whose keys it never meets. cost_limit
    replaces the limit of every task. Compiled once for a learner and its settings. `say` is told what takes its time.
    """
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    results = []
    for index, split in enumerate(splits if task is None else (GIVEN_TASK,)):
        task_key, adapt_key, path_key = jax.random.split(jax.random.fold_in(key, index), 3)
        if task is None:
            tasks = setup.tasks.sample_batch(task_key, settings.tasks, split)
        else:
            tasks = jax.tree.map(lambda x: x[None], task)
        if cost_limit is not None:
            tasks = with_cost_limit(tasks, cost_limit)
        with jax.default_matmul_precision("highest"):
            whole = on_devices((state, tasks, adapt_key), _devices(setup, tasks))
            adapt = _compiled(setup, *whole, settings, say)
            which = f"{len(tasks.cost_limit)} {split} tasks" if task is None else f"the {GIVEN_TASK}"
            say(f"adapting to {which} …")
            adaptation = on_devices(adapt(*whole), 1)
            drawn = drawn_tasks(adaptation)
            few, phi = _chosen((tasks, adaptation.phi), drawn)
            paths = record_paths(setup, state, few, phi, path_key)
        results.append(SplitResult(split, tasks, adaptation, drawn, paths))
    return Evaluation(tuple(results), setup.estimation.cost_measure, setup.env.cost_names, settings.episodes)


def _compiled(
    setup: TrainingSetup,
    state: TrainState,
    tasks: Task,
    key: Key[Array, ""],
    settings: AdaptationSettings,
    say: Callable[[str], None],
) -> Adapt:
    """`adapt_tasks` of this learner and these settings as one executable, told of while it is made."""
    shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves((state, tasks)))
    name = (setup, settings, shapes, tuple(tasks.params))
    if name not in _EXECUTABLES:
        say("compiling adapt_tasks …")
        begin = time.perf_counter()
        devices = _devices(setup, tasks)
        function = jax.jit(adapt_tasks, static_argnames=("setup", "settings"), **results_whole(devices))
        with devices_in_use(devices):
            _EXECUTABLES[name] = function.lower(setup, state, tasks, key, settings).compile()
        say(f"compiled in {time.perf_counter() - begin:.1f} s")
        if len(_EXECUTABLES) > MOST_EXECUTABLES:
            del _EXECUTABLES[next(iter(_EXECUTABLES))]
    return _EXECUTABLES[name]


def _devices(setup: TrainingSetup, tasks: Task) -> int:
    """As many of the setup's devices as can share these tasks."""
    return math.gcd(setup.devices, len(tasks.cost_limit))


def drawn_tasks(adaptation: Adaptation) -> tuple[int, ...]:
    """The tasks whose paths tell most, by their cost before adaptation (ties: by number)."""
    cost = np.asarray(adaptation.stats.episode_cost[0]).sum(axis=-1)
    order = np.argsort(-cost, kind="stable")
    places = np.linspace(0, len(order) - 1, min(PATH_TASKS, len(order))).round().astype(int)
    return tuple(int(order[place]) for place in places)


def _chosen(tree: Any, tasks: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x[np.asarray(tasks)], tree)
