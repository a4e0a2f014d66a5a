"""What looks at every row of a training: health warnings, and the stop at the first number that is not finite.

RUN_DIR/dump-<iteration>/   a run folder of its own, at the state before the iteration in which it happened:
    config.toml  metrics.csv  checkpoints/<iteration - 1>/     as in any run folder
    README                                                     what fired, and the command that repeats it
"""

import os
import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.config.schema import Config
from metacpo.training import checkpoint, health
from metacpo.training.health_rules import RULES
from metacpo.training.metrics import FILE
from metacpo.training.state import TrainState
from metacpo.training.tags import describe

LONGEST = max(rule.window for rule in RULES)


class NonFiniteError(Exception):
    """A training that was asked to stop where something is not finite; the message is one line with the command."""


class Watch:
    """The health rules over the latest rows of this session; each is told of once."""

    def __init__(self, cost: str):
        """`cost` is the tag of the cost that the limit limits."""
        self._cost = cost
        self._rows: deque[dict[str, float]] = deque(maxlen=LONGEST)
        self._told: set[str] = set()

    def see(self, iteration: int, row: Mapping[str, Any]) -> list[str]:
        """The lines to print after this meta-iteration."""
        self._rows.append({"iteration": iteration} | {tag: float(value) for tag, value in row.items()})
        tags = set().union(*self._rows)
        columns = {tag: np.array([one.get(tag, np.nan) for one in self._rows]) for tag in tags}
        new = [rule for rule in health.firing(columns, self._cost) if rule.name not in self._told]
        self._told |= {rule.name for rule in new}
        return [f"warning, meta-iteration {iteration}: {r.name} ({r.threshold}). {r.meaning} {r.advice}" for r in new]


def stop_if_not_finite(run_dir: Path, config: Config, before: TrainState, row: Mapping[str, Any]) -> None:
    """Raise NonFiniteError if the counters of the row after `before` say so, with a dump that repeats it.

    A dump that repeats itself is not dumped again.
    """
    fired = health.not_finite(row)
    if not fired:
        return
    iteration = int(before.iteration) + 1
    name = f"dump-{iteration}"
    folder = run_dir if run_dir.name == name else run_dir / name
    counts = ", ".join(f"{tag} {count:g}" for tag, count in fired.items())
    command = f"metacpo resume {folder} --debug-nans"
    if not folder.exists():
        words = [f"{tag} {count:g}: {describe(tag).description}" for tag, count in fired.items()]
        about = [f"Meta-iteration {iteration} met numbers that are not finite. To repeat it:", "", f"    {command}", ""]
        _write(folder, config, before, "\n".join([*about, *words]) + "\n")
    raise NonFiniteError(f"meta-iteration {iteration}: not finite: {counts}; repeat it with: {command}")


def _write(folder: Path, config: Config, before: TrainState, readme: str) -> None:
    """The dump, whole or absent. Rows of metrics.csv after its checkpoint are dropped when it is resumed."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    config.save(part / "config.toml")
    shutil.copyfile(folder.parent / FILE, part / FILE)
    checkpoint.save(part, before, config)
    (part / "README").write_text(readme, encoding="utf-8")
    os.replace(part, folder)
