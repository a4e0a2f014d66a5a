"""Typed loading of a run folder. Whatever is missing or damaged is named in one line, by `ReportError`.

config.toml  metrics.csv  adaptation.csv     required
paths.csv    layout.json                     optional: None and {} when absent
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.report.files import ReportError as ReportError
from metacpo.report.files import check_flags, check_whole, columns_of, numbers, read_rows, read_text
from metacpo.report.run import Adaptation, Run, Trace
from metacpo.run_folder import find_unsafe_path
from metacpo.shapes import Scene, Wall, from_plain
from metacpo.training.tags import todays_name

ADAPTATION_NUMBERS = ("task", "step", "return", "episode_cost", "discounted_cost", "cost_limit", "satisfied")
Scenes = dict[tuple[str, int], tuple[Scene, ...]]


def read_run(path: Path) -> Run:
    """Read one run folder."""
    if not path.is_dir():
        raise ReportError(f"{path}: no such run folder")
    if wrong := find_unsafe_path(path):
        raise ReportError(wrong)
    config, config_text = _read_config(path / "config.toml")
    traces, layout = path / "paths.csv", path / "layout.json"
    scenes = _read_layout(layout) if layout.exists() else {}
    return Run(
        path=path,
        config=config,
        config_text=config_text,
        metrics=_read_metrics(path / "metrics.csv"),
        adaptation=_read_adaptation(path / "adaptation.csv"),
        traces=_read_traces(traces, scenes) if traces.exists() else None,
        scenes=scenes,
    )


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    text = read_text(path)
    try:
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:  # a number of too many digits and too deep a nesting are neither
        raise ReportError(f"{path}: not valid TOML ({error})") from None


def _read_metrics(path: Path) -> dict[str, np.ndarray]:
    header, rows = read_rows(path, ("iteration", "env_steps", "seconds"))
    metrics = columns_of(path, [todays_name(tag) for tag in header], rows)
    check_whole(path, "iteration", metrics["iteration"])
    for column, values in metrics.items():
        if column.startswith("Misc/Case/"):  # a warm-up logs none
            check_whole(path, column, values[~np.isnan(values)])
    return metrics


def _read_adaptation(path: Path) -> Adaptation:
    header, rows = read_rows(path, ("split", *ADAPTATION_NUMBERS))
    place = header.index("split")
    split = tuple(row.pop(place) for row in rows)
    header.pop(place)
    table = columns_of(path, header, rows)
    for column in ("task", "step"):
        check_whole(path, column, table[column])
    for column, values in table.items():
        if column.split("/")[0] == "cost_limit" and not np.isfinite(values).all():
            raise ReportError(f"{path}: {column} must be a finite number in every row")
    check_flags(path, "satisfied", table["satisfied"])
    return Adaptation(split, table)


def _read_traces(path: Path, scenes: Scenes) -> tuple[Trace, ...]:
    """The episodes of paths.csv; () where it has a header alone: an environment without positions."""
    header, rows = read_rows(path, ("split", "task", "stage", "episode", "t", "x", "y"), may_be_empty=True)
    cells = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    of = {name: numbers(path, name, iter(column)) for name, column in cells.items() if name not in ("split", "stage")}
    for column in ("task", "episode"):
        check_whole(path, column, of[column])
    if "unsafe" in of:
        check_flags(path, "unsafe", of["unsafe"])
    places: dict[tuple[str, int, str, int], list[int]] = {}
    numbered = of["task"].astype(int).tolist(), of["episode"].astype(int).tolist()
    for row, (split, stage, task, episode) in enumerate(zip(cells["split"], cells["stage"], *numbered, strict=True)):
        places.setdefault((split, task, stage, episode), []).append(row)
    traces = []
    for key, found in places.items():
        found = np.array(found)[np.argsort(of["t"][found], kind="stable")]
        position = np.stack([of["x"][found], of["y"][found]], axis=1)
        known = of["unsafe"][found] > 0 if "unsafe" in of else _beyond_walls(scenes.get(key[:2], ()), position)
        traces.append(Trace(*key, position, known))
    return tuple(traces)


def _beyond_walls(scenes: tuple[Scene, ...], position: np.ndarray) -> np.ndarray | None:
    """Which positions [T, 2] lie outside the walls, which is all that older runs tell of safety; None without walls."""
    walls = [shape for scene in scenes[:1] for shape in scene if isinstance(shape, Wall)]
    if not walls:
        return None
    return np.any([np.abs(position[:, 0]) > abs(wall.x) for wall in walls], axis=0)


def _read_layout(path: Path) -> Scenes:
    text = read_text(path)
    try:
        return {
            (split, int(entry["task"])): _scenes(entry) for split, tasks in json.loads(text).items() for entry in tasks
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ReportError(f"{path}: not a table of splits, each a list of tasks") from None


def _scenes(entry: dict[str, Any]) -> tuple[Scene, ...]:
    """A task's floors. Older runs have its parameters alone, of which a circle and walls can be drawn."""
    if "scenes" in entry:
        return tuple(from_plain(scene) for scene in entry["scenes"])
    if "parameters" in entry:  # a task without paths
        return ()
    shapes = []
    if entry.get("radius") is not None:
        shapes.append({"kind": "ring", "x": 0, "y": 0, "radius": entry["radius"], "role": "course"})
    if entry.get("wall") is not None:
        wall = float(entry["wall"])
        shapes += [{"kind": "wall", "x": x, "role": "wall"} for x in (-wall, wall)]
    return (from_plain(shapes),)
