"""The verbs of the command line: the options of each, as a dataclass, and what it calls.

The first line of a docstring is the verb's help. JAX is imported by the verbs that need it, when they run.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from metacpo.cli.usage import UsageError, parse

if TYPE_CHECKING:
    from metacpo.training.runs import Run

DEFAULT_PRESET = "point-circle"
TABLE_WIDTH = 120  # columns, where the output is no terminal
Verb = Callable[[], int]


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run at its newest checkpoint."""

    run_dir: tyro.conf.Positional[Path]
    debug_nans: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop where a number is not finite, with a dump that repeats it; on a dump: repeat it."""

    def __call__(self) -> int:
        from metacpo.training.loop import resume

        return _finish(resume(self.run_dir, self.debug_nans))


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


@dataclass(frozen=True)
class Adapt:
    """Adapt the meta-policy of a run to new tasks and print what each update changed."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = AdaptOptions()
    split: Literal["held-out", "shifted"] = "held-out"
    """Where random tasks come from: the training distribution, or beyond it."""

    def __call__(self) -> int:
        from metacpo.training.runs import open_run

        run = open_run(self.run_dir)
        _show(_evaluate(run, self.options, (self.split,)), run)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Adapt to held-out and to shifted tasks; rewrites adaptation.csv and the paths in the run folder."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = AdaptOptions()
    physics: str | None = None
    """Another engine than the one trained on, beside it: writes adaptation-<physics>.csv and prints the difference."""

    def __call__(self) -> int:
        from metacpo.training.runs import open_run

        run = open_run(self.run_dir)
        if self.physics in (None, run.config.physics):
            return _assess(run, self.options)
        return _assess_elsewhere(run, open_run(self.run_dir, self.physics), self.options)


@dataclass(frozen=True)
class Render:
    """Film adapted episodes into RUN_DIR/render: by a camera, from above, and their paths as a picture."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = AdaptOptions()
    split: Literal["held-out", "shifted"] = "held-out"
    """Where random tasks come from: the training distribution, or beyond it."""
    format: Literal["mp4", "gif"] | None = None
    """Of the videos; mp4 where imageio-ffmpeg is installed, else gif, if not given."""

    def __call__(self) -> int:
        from metacpo.render import Request, render
        from metacpo.training.runs import open_run

        def complain(line: str) -> None:
            print(f"metacpo: {line}", file=sys.stderr)

        run = open_run(self.run_dir)
        result = _evaluate(run, self.options, (self.split,))
        for path in render(run, result, Request(self.format, self.options.seed), complain):
            print(path)
        return 0


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML file about a run, or about several (seeds of one setting)."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    """The file; report.html in the run folder (or their common parent) if not given."""

    def __call__(self) -> int:
        from metacpo.report import write_report

        if not self.run_dirs:
            raise UsageError("RUN-DIRS: missing; allowed: one or more run folders")
        print(write_report(self.run_dirs, self.out))
        return 0


@dataclass(frozen=True)
class CheckEnv:
    """Run an environment of your own through whole episodes and name what is wrong with it."""

    env: tyro.conf.Positional[str]
    """MODULE:ATTRIBUTE, FILE.py:ATTRIBUTE, or a registered name."""

    def __call__(self) -> int:
        from metacpo.envs import make
        from metacpo.envs.check import check

        findings = check(make(self.env))
        for finding in findings:
            print(f"{'FAULT' if finding.fatal else 'note '}  {finding}")
        fatal = any(finding.fatal for finding in findings)
        print(f"{self.env}: {'not ready' if fatal else 'ready to train'}")
        return int(fatal)


@dataclass(frozen=True)
class Doctor:
    """Show versions, devices and folders, and check that the physics works here."""

    def __call__(self) -> int:
        from metacpo.cli.doctor import examine

        return 0 if examine(Console()) else 1


def _train(args: Sequence[str]) -> Verb:
    """Meta-train a preset (or a TOML file) into a new run folder, then evaluate it and write its report."""
    from metacpo.config.schema import Config, presets

    asks_help = bool({"-h", "--help"} & set(args))
    if (not args or args[0].startswith("-")) and not asks_help:
        raise UsageError(f"PRESET: missing; it comes first: a FILE.toml, or one of {', '.join(presets())}")
    name = DEFAULT_PRESET if args[0].startswith("-") else args[0]
    preset = Config.load(Path(name)) if name.endswith(".toml") else Config.preset(name, **_algorithm(args))

    @dataclass(frozen=True)
    class Train:
        run_dir: Path | None = None
        """Folder of the run; runs/<preset>-<algorithm>-seed<seed>-<time> if not given."""
        debug_nans: tyro.conf.FlagCreatePairsOff[bool] = False
        """Stop where a number is not finite, with a dump that repeats it (docs/health.md)."""
        config: Annotated[Config, tyro.conf.arg(name="")] = preset

        def __call__(self) -> int:
            from metacpo.training.loop import train

            config, now = self.config, time.strftime("%Y%m%d-%H%M%S")
            algorithm = config.algorithm.rpartition(":")[2]
            name = f"{config.preset_name}-{algorithm}-seed{config.seed}-{now}"
            return _finish(train(config, self.run_dir or Path("runs") / name, self.debug_nans))

    about = (
        f"{_train.__doc__} PRESET is a FILE.toml or one of {', '.join(presets())}; defaults shown are those of {name}."
    )
    return parse(Train, "train PRESET", args[args[:1] == [name] :], about)


def _algorithm(args: Sequence[str]) -> dict[str, str]:
    """The algorithm that is asked for, which the defaults follow; nothing if none is, or none that there is."""
    from metacpo.algorithms.registry import known

    words = [word for arg in args for word in arg.split("=", 1)]
    asked = [value for option, value in pairwise(words) if option == "--algorithm" and known(value)]
    return {"algorithm": asked[-1]} if asked else {}


VERBS: dict[str, type | Callable[[Sequence[str]], Verb]] = {
    "train": _train,
    "resume": Resume,
    "adapt": Adapt,
    "evaluate": Evaluate,
    "render": Render,
    "report": Report,
    "check-env": CheckEnv,
    "doctor": Doctor,
}


def _finish(run: "Run") -> int:
    """After a training: nothing if it was interrupted, else the evaluation and the report."""
    return _assess(run, AdaptOptions()) if run.finished else 0


def _assess(run: "Run", options: AdaptOptions) -> int:
    """Evaluate on held-out and shifted tasks, write it into the run folder, and draw the report."""
    from metacpo.adaptation.files import write
    from metacpo.report import write_report

    result = _evaluate(run, options, ("held-out", "shifted"))
    write(run.path, result)
    _show(result, run)
    names = ["config.toml", "metrics.csv", "adaptation.csv"]
    if run.budget.iterations:  # a report draws a training; adaptation from scratch has none
        names.append(write_report([run.path]).name)
    for name in names:
        print(run.path / name)
    return 0


def _assess_elsewhere(run: "Run", moved: "Run", options: AdaptOptions) -> int:
    """Evaluate on the engine trained on and on another, with the same seeds; the run's own files stay."""
    from metacpo.adaptation.files import write_rows
    from metacpo.adaptation.tables import difference

    here, there = (_evaluate(where, options, ("held-out", "shifted")) for where in (run, moved))
    path = run.path / f"adaptation-{moved.config.physics}.csv"
    write_rows(path, there)
    _show(there, run)
    for line in difference(here, there, (run.config.physics, moved.config.physics)):
        print(line)
    print(path)
    return 0


def _evaluate(run: "Run", options: AdaptOptions, splits: tuple[str, ...]) -> Any:
    """Adaptation of the run's meta-policy as `trial` says, checked as the config's own settings are."""
    from metacpo.adaptation.evaluate import evaluate
    from metacpo.adaptation.from_run import adaptation_settings

    _require_same_senses(run, options)
    task = None if options.task is None else run.setup.tasks.make(_json(options.task))
    if task is not None and options.tasks is not None:
        raise UsageError(f"tasks: {options.tasks} beside one given task; allowed: one of the two")
    tasks = options.tasks if task is None else 1
    settings = adaptation_settings(
        run.config, run.setup.env.cost_names, options.seed, options.cost_limit, options.steps, tasks
    )
    return evaluate(run.setup, run.state, settings, splits, options.seed, cost_limit=options.cost_limit, task=task)


def _require_same_senses(run: "Run", options: AdaptOptions) -> None:
    """A policy sees what it was trained to see: another observation has another size."""
    if options.history not in (None, run.config.history):
        allowed = run.config.history
        raise UsageError(f"history: {options.history} is not what the run was trained with; allowed: {allowed}")
    if options.observe_task and not run.config.observe_task:
        raise UsageError("observe_task: true is not what the run was trained with; allowed: false")


def _show(result: Any, run: "Run") -> None:
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
