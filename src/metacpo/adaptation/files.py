"""What an evaluation leaves in a run folder: adaptation.csv, paths.csv, layout.json."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.adaptation.outcomes import Evaluation, SplitResult, columns
from metacpo.adaptation.paths import STAGES
from metacpo.run_folder import replacing, writing
from metacpo.shapes import to_plain


def write(run_dir: Path, evaluation: Evaluation) -> None:
    """adaptation.csv, paths.csv and layout.json of a run folder, each replaced as a whole."""
    write_rows(run_dir / "adaptation.csv", evaluation)
    with _table(run_dir / "paths.csv") as writer:
        writer.writerow(("split", "task", "stage", "episode", "t", "x", "y", "unsafe"))
        for result in evaluation.splits:
            writer.writerows(_points(result))
    layout = {result.split: _layout(result) for result in evaluation.splits}
    with writing(run_dir), replacing(run_dir / "layout.json") as part:
        part.write_text(json.dumps(layout, indent=1) + "\n", encoding="utf-8")


def write_rows(path: Path, evaluation: Evaluation) -> None:
    """A file of adaptation.csv's columns, replaced as a whole."""
    with _table(path) as writer:
        writer.writerow(columns(evaluation.cost_names))
        for row in evaluation.rows:
            writer.writerow(row.cells)


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    """The writer of a CSV file that is replaced as a whole. Raises RunError where it cannot be written."""
    with writing(path.parent), replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        yield csv.writer(file)


def _points(result: SplitResult) -> Iterator[tuple[str | int, ...]]:
    """The steps of every episode to draw up to its end; none where the environment has no positions."""
    paths = result.paths
    if paths is None:
        return
    for index, stage, t, episode in np.argwhere(paths.valid).tolist():
        x, y = paths.position[index, stage, t, episode].tolist()
        unsafe = int(paths.unsafe[index, stage, t, episode])
        yield result.split, result.drawn[index], STAGES[stage], episode, t, f"{x:.4f}", f"{y:.4f}", unsafe


def _layout(result: SplitResult) -> list[dict[str, Any]]:
    """Every task's parameters (SI units); of the tasks with paths also what is on the floor in each episode."""
    params = {name: np.asarray(value) for name, value in result.tasks.params.items()}
    layout: list[dict[str, Any]] = [
        {"task": i, "parameters": {name: round(float(x[i]), 6) for name, x in params.items()}}
        for i in range(result.tasks.cost_limit.shape[0])
    ]
    if result.paths is not None:
        for task, scenes in zip(result.drawn, result.paths.scenes, strict=True):
            layout[task]["scenes"] = [to_plain(scene) for scene in scenes]
    return layout
