"""The verbs of the command line: the options of each, as a dataclass, and what it calls.

The first line of a docstring is the verb's help. JAX is imported by the verbs that need it, when they run.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from metacpo.cli.assess import AdaptOptions, Split, assess, assess_elsewhere, evaluated, finish, show, split_of
from metacpo.cli.usage import UsageError, parse
from metacpo.run_folder import complain, require_writable

DEFAULT_PRESET = "point-circle"
Verb = Callable[[], int]


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run at its newest checkpoint."""

    run_dir: tyro.conf.Positional[Path]
    debug_nans: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop where a number is not finite, with a dump that repeats it; on a dump: repeat it."""
    devices: int = 1
    """Devices that share the tasks, whatever it was trained on before."""

    def __call__(self) -> int:
        from metacpo.runtime.devices import provide
        from metacpo.training.loop import resume

        provide(self.devices)
        return finish(resume(self.run_dir, self.debug_nans, self.devices))


@dataclass(frozen=True)
class Adapt:
    """Adapt the meta-policy of a run to new tasks and print what each update changed."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = field(default_factory=AdaptOptions)
    split: Split | None = None
    """Where random tasks come from: the training distribution (the default), or beyond it."""

    def __call__(self) -> int:
        from metacpo.training.runs import open_run

        run = open_run(self.run_dir)
        show(evaluated(run, self.options, split_of(self.options, self.split)), run)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Adapt to held-out and to shifted tasks; rewrites adaptation.csv and the paths in the run folder."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = field(default_factory=AdaptOptions)
    physics: str | None = None
    """Another engine than the one trained on, beside it: writes adaptation-<physics>.csv and prints the difference."""

    def __call__(self) -> int:
        from metacpo.training.runs import open_run

        run = open_run(self.run_dir)
        if self.physics in (None, run.config.physics):
            return assess(run, self.options)
        return assess_elsewhere(run, open_run(self.run_dir, self.physics), self.options)


@dataclass(frozen=True)
class Render:
    """Film adapted episodes into RUN_DIR/render: by a camera, from above, and their paths as a picture."""

    run_dir: tyro.conf.Positional[Path]
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = field(default_factory=AdaptOptions)
    split: Split | None = None
    """Where random tasks come from: the training distribution (the default), or beyond it."""
    format: Literal["mp4", "gif"] | None = None
    """Of the videos; mp4 where imageio-ffmpeg is installed, else gif, if not given."""

    def __call__(self) -> int:
        from metacpo.render import Request, render
        from metacpo.training.runs import open_run

        run = open_run(self.run_dir)
        splits = split_of(self.options, self.split)
        require_writable(run.path)
        result = evaluated(run, self.options, splits, say=lambda line: print(line, file=sys.stderr, flush=True))
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
        folder = _report_folder(self.run_dirs, self.out)
        if folder.is_dir():
            require_writable(folder)
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
    preset = Config.load(Path(name)) if name.endswith(".toml") else Config.preset(name, **_asked(args))

    @dataclass(frozen=True)
    class Train:
        run_dir: Path | None = None
        """Folder of the run; runs/<preset>-<algorithm>-seed<seed>-<time> if not given."""
        debug_nans: tyro.conf.FlagCreatePairsOff[bool] = False
        """Stop where a number is not finite, with a dump that repeats it (docs/health.md)."""
        devices: int = 1
        """Devices that share the tasks: cores of the processor, or accelerators (docs/scale.md)."""
        config: Annotated[Config, tyro.conf.arg(name="")] = preset

        def __call__(self) -> int:
            from metacpo.runtime.devices import provide
            from metacpo.training.loop import train

            provide(self.devices)
            config, now = self.config, time.strftime("%Y%m%d-%H%M%S")
            algorithm = config.algorithm.rpartition(":")[2]
            name = f"{config.preset_name}-{algorithm}-seed{config.seed}-{now}"
            return finish(train(config, self.run_dir or Path("runs") / name, self.debug_nans, self.devices))

    about = (
        f"{_train.__doc__} PRESET is a FILE.toml or one of {', '.join(presets())}; defaults shown are those of {name}."
    )
    return parse(Train, "train PRESET", args[args[:1] == [name] :], about)


def _report_folder(run_dirs: Sequence[Path], out: Path | None) -> Path:
    """Where a report of these runs is written."""
    if out is not None:
        return out.parent
    return run_dirs[0] if len(run_dirs) == 1 else Path(os.path.commonpath([path.resolve().parent for path in run_dirs]))


def _asked(args: Sequence[str]) -> dict[str, str]:
    """The algorithm and the network that are asked for, which the defaults follow; no algorithm that there is not."""
    from metacpo.algorithms.registry import known

    words = [word for arg in args for word in arg.split("=", 1)]
    asked = {option: value for option, value in pairwise(words) if option in ("--algorithm", "--network")}
    named = {option.removeprefix("--"): value for option, value in asked.items()}
    return {name: value for name, value in named.items() if name != "algorithm" or known(value)}


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
