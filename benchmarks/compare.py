"""The first variant of a study against each of the others, after the last update; one CSV.

    python benchmarks/compare.py benchmarks/thruster.toml      writes benchmarks/thruster_compare.csv

Reads runs/<study>/<variant>-seed<seed>/adaptation.csv, which benchmarks/learning.py has made: the same tasks for every
variant and seed. A line is one split: return and share of tasks within their limit of both, and

    ..._difference    first minus other; both ends of a 95 % interval
    improvement       P(a run of the first does better on a task than a run of the other), over all pairs of seeds and
                      all tasks; ties are half. Better: within the limit where the other is not, or both within and
                      more return. Both beyond the limit is a tie.

Intervals are percentiles of a bootstrap that draws seeds, of each variant for itself, and tasks, of both alike.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metacpo.study.plan import PlannedRun, read_study

RUNS = Path("runs")
RESAMPLES = 2000
COLUMNS = (
    *("against", "split", "step", "tasks", "seeds", "other_seeds", "return", "other_return"),
    *("return_difference", "return_difference_low", "return_difference_high", "within", "other_within"),
    *("within_difference", "within_difference_low", "within_difference_high"),
    *("improvement", "improvement_low", "improvement_high"),
)
Table = np.ndarray  # [seeds, tasks]


def outcomes(study: Path, runs: list[PlannedRun], split: str) -> tuple[str, Table, Table]:
    """(last step, return, within) of every seed and task of one variant."""
    found = []
    for run in runs:
        path = RUNS / study.stem / f"{run.variant}-seed{run.config.seed}" / "adaptation.csv"
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line["split"] == split]
        step = max(int(line["step"]) for line in lines)
        last = sorted((line for line in lines if int(line["step"]) == step), key=lambda line: int(line["task"]))
        found.append([(float(line["return"]), float(line["satisfied"])) for line in last])
    table = np.array(found)
    return str(step), table[..., 0], table[..., 1]


def improvement(x: tuple[Table, Table], y: tuple[Table, Table]) -> float:
    """See the head of this file; x, y: (return, within)."""
    score = [np.where(within > 0, value, -np.inf)[:, None] for value, within in (x, y)]
    a, b = score[0], score[1].swapaxes(0, 1)
    return float(np.mean((a > b) + 0.5 * (a == b)))


def interval(statistic: Callable[..., float], x: tuple[Table, Table], y: tuple[Table, Table]) -> tuple[float, float]:
    rng, tasks = np.random.default_rng(0), x[0].shape[1]

    def drawn(table: tuple[Table, Table], chosen: np.ndarray) -> tuple[Table, Table]:
        seeds = rng.integers(len(table[0]), size=len(table[0]))
        return table[0][np.ix_(seeds, chosen)], table[1][np.ix_(seeds, chosen)]

    values = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(tasks, size=tasks)
        values.append(statistic(drawn(x, chosen), drawn(y, chosen)))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    study = parser.parse_args().study
    variants: dict[str, list[PlannedRun]] = {}
    for run in read_study(study):
        variants.setdefault(run.variant, []).append(run)
    (_, first), *others = variants.items()
    statistics = {
        "return_difference": lambda x, y: float(x[0].mean() - y[0].mean()),
        "within_difference": lambda x, y: float(x[1].mean() - y[1].mean()),
        "improvement": improvement,
    }
    rows = []
    for name, runs in others:
        for split in ("held-out", "shifted"):
            step, *x = outcomes(study, first, split)
            _, *y = outcomes(study, runs, split)
            row = {"against": name, "split": split, "step": step, "tasks": x[0].shape[1]}
            row |= {"seeds": len(first), "other_seeds": len(runs), "return": x[0].mean(), "other_return": y[0].mean()}
            row |= {"within": x[1].mean(), "other_within": y[1].mean()}
            for column, statistic in statistics.items():
                low, high = interval(statistic, tuple(x), tuple(y))
                row |= {column: statistic(x, y), f"{column}_low": low, f"{column}_high": high}
            rows.append({key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()})
    path = study.with_name(f"{study.stem}_compare.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path)


if __name__ == "__main__":
    main()
