"""Typed loading of a run folder. Whatever is missing or damaged is named in one line, by `ReportError`.

config.toml  metrics.csv  adaptation.csv     required
paths.csv    layout.json                     optional: None and {} when absent
"""

import csv
import json
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.run_folder import find_unsafe_path
from metacpo.training.tags import todays_name

ADAPTATION_NUMBERS = (
    "task",
    "step",
    "return",
    "episode_cost",
    "discounted_cost",
    "cost_limit",
    "satisfied",
)
LARGEST = float(np.finfo(np.float32).max)  # of a finite number in a run
STEP_TAG = re.compile(r"Adapt/step(\d+)/EpRet")


class ReportError(Exception):
    """A run folder cannot be reported; the message is one line that names the file."""


@dataclass(frozen=True)
class Adaptation:
    """`adaptation.csv` by column; one entry per (split, task, step)."""

    split: tuple[str, ...]
    numbers: dict[str, np.ndarray]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits in the file's order, each once."""
        return tuple(dict.fromkeys(self.split))

    def grid(self, split: str, column: str) -> np.ndarray:
        """One column of one split as [tasks, steps]; NaN where a task was not evaluated at a step."""
        rows = np.array([name == split for name in self.split])
        tasks, task = np.unique(self.numbers["task"][rows], return_inverse=True)
        steps, step = np.unique(self.numbers["step"][rows], return_inverse=True)
        grid = np.full((len(tasks), len(steps)), np.nan)
        grid[task, step] = self.numbers[column][rows]
        return grid

    def steps(self, split: str) -> np.ndarray:
        """The numbers of updates after which the split was evaluated, ascending."""
        rows = np.array([name == split for name in self.split])
        return np.unique(self.numbers["step"][rows])


@dataclass(frozen=True)
class Trace:
    """One episode's path, seen from above; x and y in metres, in the order of time."""

    split: str
    task: int
    stage: str  # "before" or "after" adaptation
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Geometry:
    """What to draw under a task's paths, in metres; None for what the task does not have."""

    circle_radius: float | None = None  # a circle round the origin, to run along
    wall: float | None = None  # walls at x = ±wall, unsafe behind them


@dataclass(frozen=True)
class Run:
    """Everything that a report says about one run."""

    path: Path
    config: dict[str, Any]
    config_text: str
    metrics: dict[str, np.ndarray]
    adaptation: Adaptation
    traces: tuple[Trace, ...] | None
    layout: dict[tuple[str, int], Geometry]  # by (split, task)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def setting(self, dotted: str, default: Any = None) -> Any:
        """A setting by its dotted name, such as `meta.steps`; the default where any part is missing."""
        value: Any = self.config
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    @property
    def limited_cost(self) -> str:
        """The column of `adaptation.csv` that `cost_limit` limits."""
        measure = self.setting("estimation.cost_measure", "episode")
        return "discounted_cost" if measure == "discounted" else "episode_cost"

    @property
    def last_step(self) -> int:
        """K, the number of inner updates per meta-iteration, as the tags of `metrics.csv` tell it."""
        found = [STEP_TAG.fullmatch(tag) for tag in self.metrics]
        return max((int(match[1]) for match in found if match), default=0)


def read_run(path: Path) -> Run:
    """Read one run folder."""
    if not path.is_dir():
        raise ReportError(f"{path}: no such run folder")
    if wrong := find_unsafe_path(path):
        raise ReportError(wrong)
    config, config_text = _read_config(path / "config.toml")
    traces = path / "paths.csv"
    layout = path / "layout.json"
    return Run(
        path=path,
        config=config,
        config_text=config_text,
        metrics=_read_metrics(path / "metrics.csv"),
        adaptation=_read_adaptation(path / "adaptation.csv"),
        traces=_read_traces(traces) if traces.exists() else None,
        layout=_read_layout(layout) if layout.exists() else {},
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path}: missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({error})") from None


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    text = _read_text(path)
    try:
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:  # a number of too many digits and too deep a nesting are neither
        raise ReportError(f"{path}: not valid TOML ({error})") from None


def _read_rows(path: Path, required: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """A CSV file's header and rows; every row as long as the header, every required column present."""
    try:
        header, *rows = csv.reader(_read_text(path).splitlines(), strict=True)
    except (ValueError, csv.Error):
        raise ReportError(f"{path}: not a CSV file with a header") from None
    missing = [column for column in required if column not in header]
    if missing:
        raise ReportError(f"{path}: no column {', '.join(missing)}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ReportError(f"{path}: line {number} has {len(row)} cells, the header has {len(header)}")
    if not rows:
        raise ReportError(f"{path}: no rows")
    return header, rows


def _numbers(path: Path, column: str, cells: Iterator[str]) -> np.ndarray:
    """A column as floats; an empty cell (a tag that one iteration did not log) is NaN."""
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError:
            raise ReportError(f"{path}: line {line}: {column} is {cell!r}, not a number") from None
        if LARGEST < abs(value) < math.inf:
            raise ReportError(f"{path}: line {line}: {column} is {cell}, no number of a run (float32)")
        values.append(value)
    return np.array(values)


def _check_whole(path: Path, column: str, values: np.ndarray) -> None:
    if np.any(~(np.abs(values) < 2**53) | (values != np.floor(values))):
        raise ReportError(f"{path}: {column} must be a whole number in every row")


def _columns(path: Path, header: list[str], rows: list[list[str]]) -> dict[str, np.ndarray]:
    """The named columns as numbers; the header gives each column's place in a row."""
    return {name: _numbers(path, name, (row[place] for row in rows)) for place, name in enumerate(header)}


def _read_metrics(path: Path) -> dict[str, np.ndarray]:
    header, rows = _read_rows(path, ("iteration", "env_steps", "seconds"))
    metrics = _columns(path, [todays_name(tag) for tag in header], rows)
    _check_whole(path, "iteration", metrics["iteration"])
    for column, values in metrics.items():
        if column.startswith("Misc/Case/"):  # a warm-up logs none
            _check_whole(path, column, values[~np.isnan(values)])
    return metrics


def _read_adaptation(path: Path) -> Adaptation:
    header, rows = _read_rows(path, ("split", *ADAPTATION_NUMBERS))
    place = header.index("split")
    split = tuple(row.pop(place) for row in rows)
    header.pop(place)
    numbers = _columns(path, header, rows)
    for column in ("task", "step"):
        _check_whole(path, column, numbers[column])
    if not np.isfinite(numbers["cost_limit"]).all():
        raise ReportError(f"{path}: cost_limit must be a finite number in every row")
    if not np.isin(numbers["satisfied"], (0, 1)).all():
        raise ReportError(f"{path}: satisfied must be 0 or 1 in every row")
    return Adaptation(split, numbers)


def _read_traces(path: Path) -> tuple[Trace, ...]:
    header, rows = _read_rows(path, ("split", "task", "stage", "episode", "t", "x", "y"))
    column = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    task, episode, t, x, y = (_numbers(path, name, iter(column[name])) for name in ("task", "episode", "t", "x", "y"))
    _check_whole(path, "task", task)
    episodes: dict[tuple[str, int, str, float], list[int]] = {}
    keys = zip(column["split"], task.astype(int).tolist(), column["stage"], episode.tolist(), strict=True)
    for row, key in enumerate(keys):
        episodes.setdefault(key, []).append(row)
    traces = []
    for (split, number, stage, _), places in episodes.items():
        places = np.array(places)[np.argsort(t[places], kind="stable")]
        traces.append(Trace(split, number, stage, x[places], y[places]))
    return tuple(traces)


def _read_layout(path: Path) -> dict[tuple[str, int], Geometry]:
    def length(entry: dict[str, Any], key: str) -> float | None:
        return None if entry.get(key) is None else float(entry[key])

    text = _read_text(path)
    try:
        return {
            (split, int(entry["task"])): Geometry(length(entry, "radius"), length(entry, "wall"))
            for split, tasks in json.loads(text).items()
            for entry in tasks
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ReportError(f"{path}: not a table of splits, each a list of tasks") from None
