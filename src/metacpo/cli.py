"""The command line: verbs, their options, exit codes. What a verb does is elsewhere.

Exit codes: 0 done (an interrupted run that was saved is done), 1 failed, 2 bad usage or config. Whatever is wrong
is one line on stderr; `--debug`, which every verb takes, shows the traceback. JAX is imported by the verbs that
need it, so that help and usage errors are quick.
"""

import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

DEFAULT_PRESET = "point-circle"
Verb = Callable[[], int]


class UsageError(Exception):
    """A command line that is not allowed; the message is one line."""


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run at its newest checkpoint."""

    run_dir: tyro.conf.Positional[Path]

    def __call__(self) -> int:
        from metacpo.training import resume

        return _finish(resume(self.run_dir))


@dataclass(frozen=True)
class Trial:
    """How the meta-policy is adapted; what is not given is as in the run's config."""

    steps: int | None = None
    """Updates on each task."""
    tasks: int | None = None
    """Tasks a split."""
    task: str | None = None
    """One task instead of random ones, as JSON: '{"radius": 1.3}'."""
    cost_limit: float | None = None
    """Another limit than the one that the run was trained under."""
    seed: int = 0
    """Of the tasks and of the rollouts."""


@dataclass(frozen=True)
class Adapt:
    """Adapt the meta-policy of a run to new tasks and print what each update changed."""

    run_dir: tyro.conf.Positional[Path]
    trial: Annotated[Trial, tyro.conf.arg(name="")] = Trial()
    split: Literal["held-out", "shifted"] = "held-out"
    """Where random tasks come from: the training distribution, or beyond it."""

    def __call__(self) -> int:
        from metacpo.evaluation import table
        from metacpo.training import open_run

        Console().print(table(_evaluate(open_run(self.run_dir), self.trial, (self.split,))))
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Adapt to held-out and to shifted tasks; rewrites adaptation.csv and the paths in the run folder."""

    run_dir: tyro.conf.Positional[Path]
    trial: Annotated[Trial, tyro.conf.arg(name="")] = Trial()

    def __call__(self) -> int:
        from metacpo.training import open_run

        return _assess(open_run(self.run_dir), self.trial)


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
class Doctor:
    """Show versions, devices and folders, and check that the physics works here."""

    def __call__(self) -> int:
        from metacpo.doctor import examine

        return 0 if examine(Console()) else 1


def _train(args: Sequence[str]) -> Verb:
    """Meta-train a preset into a new run folder, then evaluate it and write its report."""
    from metacpo.config import Config, presets

    asks_help = bool({"-h", "--help"} & set(args))
    if (not args or args[0].startswith("-")) and not asks_help:
        raise UsageError(f"PRESET: missing; it comes first and is one of {', '.join(presets())}")
    name = DEFAULT_PRESET if args[0].startswith("-") else args[0]
    preset = Config.preset(name)

    @dataclass(frozen=True)
    class Train:
        run_dir: Path | None = None
        """Folder of the run; runs/<preset>-<algorithm>-seed<seed>-<time> if not given."""
        config: Annotated[Config, tyro.conf.arg(name="")] = preset

        def __call__(self) -> int:
            from metacpo.training import train

            config = self.config
            stamp = f"{config.preset}-{config.algorithm}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            return _finish(train(config, self.run_dir or Path("runs") / stamp))

    about = f"{_train.__doc__} PRESET is one of {', '.join(presets())}; defaults shown are those of {name}."
    return _parse(Train, "train PRESET", args[args[:1] == [name] :], about)


VERBS: dict[str, type | Callable[[Sequence[str]], Verb]] = {
    "train": _train,
    "resume": Resume,
    "adapt": Adapt,
    "evaluate": Evaluate,
    "report": Report,
    "doctor": Doctor,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    try:
        return _verb([arg for arg in args if arg != "--debug"])()
    except SystemExit as end:  # help
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("metacpo: interrupted", file=sys.stderr)
        return 1
    except Exception as error:  # the boundary to the user: every failure is one line and an exit code
        if debug:
            raise
        print(f"metacpo: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, _usage_errors()) else 1


def _verb(args: Sequence[str]) -> Verb:
    if args and args[0] in ("-h", "--help"):
        return _help
    if not args or args[0] not in VERBS:
        given = repr(args[0]) if args else "missing"
        raise UsageError(
            f"verb: {given} is not one of {', '.join(VERBS)}"
            if args
            else f"verb: missing; allowed: {', '.join(VERBS)}"
        )
    verb = VERBS[args[0]]
    return _parse(verb, args[0], args[1:]) if isinstance(verb, type) else verb(args[1:])
