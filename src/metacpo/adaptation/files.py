"""What an evaluation leaves in a run folder: adaptation.csv, paths.csv, layout.json."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.adaptation.outcomes import Evaluation, columns
from metacpo.envs.tasks import Task
from metacpo.run_folder import replacing, writing


def write(run_dir: Path, evaluation: Evaluation) -> None:
    """adaptation.csv, paths.csv and layout.json of a run folder, each replaced as a whole."""
    write_rows(run_dir / "adaptation.csv", evaluation)
    with _table(run_dir / "paths.csv") as writer:
        writer.writerow(("split", "task", "stage", "episode", "t", "x", "y"))
        for result in evaluation.splits:
            for (index, stage, t, episode), x, y in _points(np.asarray(result.paths)):
                writer.writerow((result.split, result.drawn[index], stage, episode, t, f"{x:.4f}", f"{y:.4f}"))
    layout = {result.split: _layout(result.tasks) for result in evaluation.splits}
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


def _points(paths: np.ndarray) -> Iterator[tuple[tuple[int, str, int, int], float, float]]:
    for index, stage, t, episode in np.ndindex(*paths.shape[:-1]):
        x, y = paths[index, stage, t, episode]
        yield (index, ("before", "after")[stage], t, episode), float(x), float(y)


def _layout(tasks: Task) -> list[dict[str, int | float]]:
    """Every task's physical parameters (SI units), to draw them."""
    params = {name: np.asarray(value) for name, value in tasks.params.items()}
    count = tasks.cost_limit.shape[0]
    return [{"task": i} | {name: round(float(v[i]), 6) for name, v in params.items()} for i in range(count)]
