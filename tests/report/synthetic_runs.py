"""Run folders with known numbers: what `metacpo.report` reads, made without training anything."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CONFIG = """\
preset = "point-circle"
algorithm = "meta-cpo"
seed = 0

[env]
name = "point-circle"

[meta]
steps = 3

[estimation]
cost_measure = "episode"
"""
CASES = ("INFEASIBLE", "RECOVERING", "BINDING", "SLACK", "UNCONSTRAINED", "INVALID")
K = 3
LIMIT = 25.0
WALL = 0.9
LIMITS = {"walls": 20.0, "hazards": 5.0}  # of two constraints; 4 of every cost are the hazards', the rest the walls'


def write_table(path: Path, header: Sequence[str], rows: Sequence[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_run(
    folder: Path,
    iterations: int = 40,
    config: str = CONFIG,
    paths: bool = True,
    seed: int = 0,
    wider: bool = False,
    several: bool = False,
) -> Path:
    """A complete run folder: 2 splits of 4 tasks, K = 3 updates.

    wider: with the columns of later versions; several: with those of two constraints, whose sum is the cost.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    (folder / "config.toml").write_text(config)
    metrics = learning(iterations, rng)
    if several:
        metrics |= {f"Metrics/CostLimit/{name}": np.full(iterations, limit) for name, limit in LIMITS.items()}
        metrics |= {
            "Metrics/EpCost/walls": metrics["Metrics/EpCost"] - 4,
            "Metrics/EpCost/hazards": np.full(iterations, 4),
        }
    write_table(folder / "metrics.csv", list(metrics), np.stack(list(metrics.values()), axis=1).tolist())
    rows = [row for split in ("held-out", "shifted") for task in range(4) for row in adaptation(split, task)]
    header = "split,task,step,return,episode_cost,discounted_cost,cost_limit,satisfied".split(",")
    if wider:  # half of the episodes are within where the mean is at the limit, and the more the lower it is
        header += ["episodes_within", "excess"]
        rows = [[*row, max(0.0, min(1.0, 0.5 - 0.02 * (row[4] - LIMIT))), row[4] - LIMIT] for row in rows]
    if several:
        header += [f"{column}/{name}" for name in LIMITS for column in ("cost", "cost_limit")]
        rows = [[*row, row[4] - 4, LIMITS["walls"], 4.0, LIMITS["hazards"]] for row in rows]
    write_table(folder / "adaptation.csv", header, rows)
    if paths:
        write_paths(folder, rng)
    return folder


def learning(iterations: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The columns of metrics.csv: return and cost improve over training and over the inner updates."""
    done = np.linspace(0, 1, iterations)

    def noise(size: float) -> np.ndarray:
        return size * rng.standard_normal(iterations)

    columns = {"iteration": np.arange(iterations), "env_steps": 25000.0 * np.arange(1, iterations + 1)}
    columns["seconds"] = 3.1 * np.arange(1, iterations + 1)
    for step in range(K + 1):
        skill = (1 - np.exp(-4 * done)) * (0.5 + 0.5 * step / K)
        columns[f"Adapt/step{step}/EpRet"] = 40 * skill + noise(2)
        columns[f"Adapt/step{step}/EpCost"] = np.maximum(0, 25 + 60 * np.exp(-5 * done) - 5 * step + noise(5))
    columns["Metrics/EpRet"] = columns[f"Adapt/step{K}/EpRet"]
    columns["Metrics/EpCost"] = columns[f"Adapt/step{K}/EpCost"]
    columns["Metrics/DiscountedCost"] = 0.2 * columns["Metrics/EpCost"]
    columns["Metrics/CostLimit"] = np.full(iterations, LIMIT)
    columns["Metrics/SatisfiedFraction"] = np.clip(np.round((done + noise(0.1)) * 5) / 5, 0, 1)
    for quantity in ("Cost", "Return"):
        predicted = noise(2)
        columns[f"Train/{quantity}Predicted"] = predicted
        columns[f"Train/{quantity}Actual"] = 0.7 * predicted + noise(0.5)
    columns["Train/KL"] = 0.009 + noise(0.0005)
    columns["Meta/KL"] = 0.008 + noise(0.001)
    shares = np.stack([1 - done, 0.5 * (1 - done), 0.5 + done, done, 0.1 + 0 * done, 0.01 + 0 * done], axis=1)
    counts = np.array([rng.multinomial(15, row / row.sum()) for row in shares])
    columns |= {f"Misc/Case/{case}": counts[:, place] for place, case in enumerate(CASES)}
    columns |= {
        "Meta/Accepted": np.ones(iterations),
        "Misc/Rejected": counts[:, 5],
        "Misc/DerivativeClipped": counts[:, 5],
    }
    columns |= {"Misc/CGResidual": 1e-6 + 0 * done, "Train/PolicyStd": 0.6 - 0.3 * done}
    return columns


def adaptation(split: str, task: int) -> list[list]:
    """Rows of one task. Held-out: return 10 (k + 1) + task, cost 40 − 5 (k + task); shifted costs 12 more."""
    rows = []
    for step in range(K + 1):
        cost = 40.0 - 5 * (step + task) + (12 if split == "shifted" else 0)
        rows.append(
            [split, task, step, 10.0 * (step + 1) + task, cost, cost / 5, LIMIT, int(cost <= LIMIT)],
        )
    return rows


def write_paths(folder: Path, rng: np.random.Generator) -> None:
    """Circles: wide ones before adaptation (beyond the walls), narrow ones after."""
    rows, layout = [], {}
    time = np.arange(0, 200)
    for split, radius in (("held-out", 1.3), ("shifted", 2.2)):
        layout[split] = [{"task": task, "radius": radius, "wall": WALL} for task in range(4)]
        for task in range(4):
            for stage, reach in (("before", 1.1 * radius), ("after", 0.95 * WALL)):
                for episode in range(2):
                    r = reach * (1 - np.exp(-time / 30)) + 0.01 * rng.standard_normal(len(time))
                    x, y = r * np.cos(time / 20 + episode), 1.3 * r * np.sin(time / 20 + episode)
                    rows += [
                        [split, task, stage, episode, t, f"{a:.4f}", f"{b:.4f}"]
                        for t, a, b in zip(time.tolist(), x, y, strict=True)
                    ]
    write_table(folder / "paths.csv", ["split", "task", "stage", "episode", "t", "x", "y"], rows)
    (folder / "layout.json").write_text(json.dumps(layout))
