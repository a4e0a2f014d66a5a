"""Evaluations that verbs ask for: their options, checked; the words while they run; what is shown and written.

JAX is imported when they run.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

from metacpo.cli.usage import UsageError
from metacpo.run_folder import require_writable

if TYPE_CHECKING:
    from metacpo.training.runs import Run

TABLE_WIDTH = 120  # columns, where the output is no terminal
Split = Literal["held-out", "shifted"]
BOTH: tuple[Split, ...] = ("held-out", "shifted")
Say = Callable[[str], None]
say_now: Say = partial(print, flush=True)  # a pipe would keep what is said until the end


@dataclass(frozen=True)
class AdaptOptions:
    """How the meta-policy is adapted; what is not given is as in the run's config."""

    steps: int | None = None
    """Updates on each task."""
    tasks: int | None = None
    """Tasks a split; tables that report results have 100."""
    task: str | None = None
    """One task instead of random ones, as JSON: '{"radius": 1.3}'."""
    cost_limit: float | tuple[float, ...] | None = None
    """Another limit than the one that the run was trained under: one for all constraints, or one for each."""
    seed: int = 0
    """Of the tasks and of the rollouts; tables that report results have 1000, whose tasks no preset was tuned on."""
    history: int | None = None
    """What the run was trained with; nothing else is allowed."""
    observe_task: tyro.conf.FlagCreatePairsOff[bool] = False
    """The run was trained with it."""
    observe_limit: tyro.conf.FlagCreatePairsOff[bool] = False
    """The run was trained with it."""


def finish(run: "Run") -> int:
    """After a training: nothing if it was interrupted, else the evaluation and the report."""
    return assess(run, AdaptOptions()) if run.finished else 0


def assess(run: "Run", options: AdaptOptions) -> int:
    """Evaluate on held-out and shifted tasks, write it into the run folder, and draw the report."""
    from metacpo.adaptation.files import write
    from metacpo.report import write_report

    require_writable(run.path)
    result = evaluated(run, options, BOTH)
    write(run.path, result)
    show(result, run)
    names = ["config.toml", "metrics.csv", "adaptation.csv"]
    if run.budget.iterations:  # a report draws a training; adaptation from scratch has none
        names.append(write_report([run.path]).name)
    for name in names:
        print(run.path / name)
    return 0


def assess_elsewhere(run: "Run", moved: "Run", options: AdaptOptions) -> int:
    """Evaluate on the engine trained on and on another, with the same seeds; the run's own files stay."""
    from metacpo.adaptation.files import write_rows
    from metacpo.adaptation.tables import difference

    require_writable(run.path)
    here, there = (evaluated(where, options, BOTH) for where in (run, moved))
    path = run.path / f"adaptation-{moved.config.physics}.csv"
    write_rows(path, there)
    show(there, run)
    for line in difference(here, there, (run.config.physics, moved.config.physics)):
        print(line)
    print(path)
    return 0


def split_of(options: AdaptOptions, split: Split | None) -> tuple[Split]:
    """Where the tasks of a verb for one split come from; a given task comes from none."""
    if split is not None and options.task is not None:
        raise UsageError(f"split: {split} beside one given task; allowed: one of the two")
    return (split or "held-out",)


def evaluated(run: "Run", options: AdaptOptions, splits: tuple[Split, ...], say: Say = say_now) -> Any:
    """Adaptation of the run's meta-policy as the options say, checked as the config's own settings are."""
    from metacpo.adaptation.evaluate import evaluate
    from metacpo.adaptation.from_run import adaptation_settings

    _require_same_senses(run, options)
    task = None if options.task is None else run.setup.tasks.make(_json(options.task))
    if task is not None and options.tasks is not None:
        raise UsageError(f"tasks: {options.tasks} beside one given task; allowed: one of the two")
    tasks, limit = options.tasks if task is None else 1, options.cost_limit
    settings = adaptation_settings(run.config, run.setup.env.cost_names, options.seed, limit, options.steps, tasks)
    return evaluate(run.setup, run.state, settings, splits, options.seed, cost_limit=limit, task=task, say=say)


def _require_same_senses(run: "Run", options: AdaptOptions) -> None:
    """A policy sees what it was trained to see: another observation has another size."""
    if options.history not in (None, run.config.history):
        allowed = run.config.history
        raise UsageError(f"history: {options.history} is not what the run was trained with; allowed: {allowed}")
    for name in ("observe_task", "observe_limit"):
        if getattr(options, name) and not getattr(run.config, name):
            raise UsageError(f"{name}: true is not what the run was trained with; allowed: false")


def show(result: Any, run: "Run") -> None:
    """The tables of an evaluation on the console."""
    from metacpo.adaptation.tables import table, while_adapting

    console = Console()
    if not console.is_terminal:  # a file has no width: 80 columns would fold the table
        console = Console(width=TABLE_WIDTH)
    console.print(table(result, run.env_steps))
    for line in while_adapting(result):
        console.print(line, highlight=False, soft_wrap=True)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of too many digits, too deep a nesting
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"task: {text!r} is not JSON of the form '{{\"radius\": 1.3}}'")
    return value
