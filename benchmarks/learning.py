"""Train and evaluate every variant of a study with every seed; one CSV of what came out.

    python benchmarks/learning.py benchmarks/point_circle.toml      writes benchmarks/point_circle.csv

A study is a TOML file: `seeds`, and `[[variants]]` with a `name`, a `preset` and the settings that differ from it.
Runs live in runs/<study>/<variant>-seed<seed>, as `metacpo train` makes them. Started again, the script resumes
what was interrupted, skips what is done and writes the same CSV. A line of it is one split after one update:
means over its tasks, and in how many of them the limited cost was within the limit; `optimum` is the mean of the best
value that any policy can have under the limits, where it is known.
"""

import argparse
import csv
import json
from pathlib import Path

import jax
import numpy as np

import metacpo
from metacpo import budget
from metacpo.config import ConfigError, build
from metacpo.envs import bandit, tabular
from metacpo.evaluation import evaluate, write
from metacpo.report import write_report
from metacpo.study import read_study
from metacpo.tasks import with_cost_limit
from metacpo.training import CONFIG, Run, open_run

RUNS = Path("runs")
COLUMNS = (
    *("variant", "seed", "split", "step", "tasks", "within", "return", "episode_cost", "discounted_cost"),
    *("cost_limit", "worst_cost", "optimum", "train_seconds", "env_steps"),
)
SPLITS = ("held-out", "shifted")
OPTIMA = {
    "bandit": lambda task, limit: float(bandit.optimal_value(task)[0]),
    "tabular": lambda task, limit: tabular.optimal_value(task, limit)[0],
}


def trained(config: metacpo.Config, run_dir: Path) -> Run:
    """The finished run in this folder, trained now as far as it is not."""
    if not (run_dir / CONFIG).exists():
        return metacpo.train(config, run_dir)
    if open_run(run_dir).config != config:
        raise SystemExit(f"{run_dir}: holds a run of other settings; move it away")
    return metacpo.resume(run_dir)


def evaluated(run: Run) -> None:
    """adaptation.csv and the report of a finished run, on the tasks on which `metacpo train` evaluates it."""
    if not (run.path / "adaptation.csv").exists():
        result = evaluate(run.learner, run.state, run.config.adaptation, SPLITS, seed=0)
        write(run.path, result)
        write_report([run.path])


def optimum(config: metacpo.Config, params: dict[str, float], limit: float) -> float:
    """The best value of a task under its limit; NaN where the family does not tell."""
    if config.env not in OPTIMA:
        return float("nan")
    return OPTIMA[config.env](with_cost_limit(metacpo.make(config.env).tasks.make(params), limit), limit)


def summary(variant: str, run_dir: Path) -> list[dict[str, object]]:
    """One row per split and step."""
    config = metacpo.Config.load(run_dir / CONFIG)
    with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    with (run_dir / "adaptation.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    layout = json.loads((run_dir / "layout.json").read_text(encoding="utf-8"))
    limited = "episode_cost" if config.estimation.cost_measure == "episode" else "discounted_cost"
    rows = []
    for split, step in dict.fromkeys((line["split"], line["step"]) for line in lines):
        group = [line for line in lines if (line["split"], line["step"]) == (split, step)]
        params = [{name: x for name, x in task.items() if name != "task"} for task in layout[split]]
        limits = [float(line["cost_limit"]) for line in group]
        best = np.mean([optimum(config, *of_task) for of_task in zip(params, limits, strict=True)])
        mean = {name: f"{np.mean([float(line[name]) for line in group]):.4g}" for name in COLUMNS[6:10]}
        rows.append(
            {"variant": variant, "seed": config.seed, "split": split, "step": step, "tasks": len(group)}
            | {"within": sum(int(line["satisfied"]) for line in group), **mean}
            | {"worst_cost": f"{max(float(line[limited]) for line in group):.4g}"}
            | {"optimum": "" if np.isnan(best) else f"{best:.4g}"}
            | {"train_seconds": f"{float(last['seconds']):.0f}", "env_steps": last["env_steps"]}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    study = parser.parse_args().study
    try:
        plan = read_study(study)
        for planned in plan:  # a mistake in the last variant should not be found after hours
            budget.plan(planned.config, build(planned.config))
    except ConfigError as error:
        raise SystemExit(f"learning: {error}") from None
    rows = []
    for planned in plan:
        run_dir = RUNS / study.stem / f"{planned.variant}-seed{planned.config.seed}"
        print(f"{run_dir}", flush=True)
        run = trained(planned.config, run_dir)
        if not run.finished:
            raise SystemExit("interrupted; the same command goes on")
        evaluated(run)
        jax.clear_caches()
        rows += summary(planned.variant, run_dir)
        with study.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
