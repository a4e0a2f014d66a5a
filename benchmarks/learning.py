"""Train and evaluate every variant of a study with every seed; one CSV of what came out.

    python benchmarks/learning.py benchmarks/point_circle.toml      writes benchmarks/point_circle.csv

A study is a TOML file: `seeds`, and `[[variants]]` with a `name`, a `preset` and the settings that differ from it.
Runs live in runs/<study>/<variant>-seed<seed>, as `metacpo train` makes them. Started again, the script resumes
what was interrupted, skips what is done and writes the same CSV; with --keep, rows of the CSV whose run folder is not
on this machine stay as they are, and are not run again. A line of it is one split after one update, on
REPORT_TASKS tasks of REPORT_SEED (TUNING_TASKS of TUNING_SEED where the study says `tuning = true`): means over the
tasks, and how many of them are within all limits, with actions drawn from the policy and (`deterministic_...`) with its
mean actions; `worst_cost` is the largest limited cost of a task, `worst_excess` the largest above its limit;
`..._low` and `..._high` are the ends of 95 % intervals over tasks; `optimum` is the mean of the best value that any
policy can have under the limits, where it is known; `settings` is a digest of all settings but the seed that are not at
their default: rows of other settings than the study's are never kept.
"""

import argparse
import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

import metacpo
from metacpo.adaptation.evaluate import REPORT_SEED, REPORT_TASKS, evaluate
from metacpo.adaptation.files import write
from metacpo.config.schema import ConfigError
from metacpo.envs.families import bandit, tabular
from metacpo.envs.tasks import with_cost_limit
from metacpo.report import write_report
from metacpo.run_folder import replacing
from metacpo.statistics import mean_interval, share_interval
from metacpo.study.plan import read_study
from metacpo.training import budget
from metacpo.training.runs import CONFIG, Run, open_run
from metacpo.training.setup import build
from metacpo.training.tags import LIMITED_COLUMN

RUNS = Path("runs")
TUNING_SEED, TUNING_TASKS = 1, 40  # a preset is chosen on other tasks than it is reported on
COLUMNS = (
    *("variant", "seed", "split", "step", "tasks", "within", "within_low", "within_high"),
    *("return", "return_low", "return_high", "episode_cost", "discounted_cost", "cost_low", "cost_high", "cost_limit"),
    *("episodes_above", "episodes_above_low", "episodes_above_high", "worst_cost", "worst_excess"),
    *("deterministic_within", "deterministic_return", "deterministic_cost", "deterministic_worst_excess"),
    *("optimum", "train_seconds", "env_steps", "settings"),
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


def evaluated(run: Run, tuning: bool) -> None:
    """adaptation.csv and the report of a finished run; results are on tasks that no preset was tuned on."""
    seed, tasks = (TUNING_SEED, TUNING_TASKS) if tuning else (REPORT_SEED, REPORT_TASKS)
    path = run.path / "adaptation.csv"
    if not path.exists() or {int(line["task"]) for line in read_lines(path)} != set(range(tasks)):
        settings = dataclasses.replace(run.config.adaptation, tasks=tasks)
        write(run.path, evaluate(run.setup, run.state, settings, SPLITS, seed))
        if run.budget.iterations:  # a report draws a training; adaptation from scratch has none
            write_report([run.path])


def digest(config: metacpo.Config) -> str:
    """What tells the settings of two variants apart; a setting that is added later, at its default, changes nothing."""

    def flat(config: metacpo.Config) -> dict[str, object]:
        parts = {name: x if isinstance(x, dict) else {"": x} for name, x in dataclasses.asdict(config).items()}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}

    usual = flat(metacpo.Config())
    own = {name: x for name, x in flat(config).items() if x != usual[name] and name not in ("seed.", "preset_name.")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]


def read_lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def optimum(config: metacpo.Config, params: dict[str, float], limit: float) -> float:
    """The best value of a task under its limit; NaN where the family does not tell."""
    if config.env not in OPTIMA:
        return float("nan")
    return OPTIMA[config.env](with_cost_limit(metacpo.make(config.env).tasks.make(params), limit), limit)


def summary(variant: str, run_dir: Path) -> list[dict[str, object]]:
    """One row per split and step."""
    config = metacpo.Config.load(run_dir / CONFIG)
    last = (read_lines(run_dir / "metrics.csv") or [{"seconds": "0", "env_steps": "0"}])[-1]  # none: untrained
    lines = read_lines(run_dir / "adaptation.csv")
    layout = json.loads((run_dir / "layout.json").read_text(encoding="utf-8"))
    limited = LIMITED_COLUMN[config.estimation.cost_measure]
    rows = []
    for split, step in dict.fromkeys((line["split"], line["step"]) for line in lines):
        group = [line for line in lines if (line["split"], line["step"]) == (split, step)]
        params = [task["parameters"] for task in layout[split]]
        limits = [float(line["cost_limit"]) for line in group]
        best = np.mean([optimum(config, *of_task) for of_task in zip(params, limits, strict=True)])
        rows.append(
            {"variant": variant, "seed": config.seed, "split": split, "step": step, "tasks": len(group)}
            | figures(group, limited)
            | {"optimum": shown(float(best))}
            | {"train_seconds": f"{float(last['seconds']):.0f}", "env_steps": last["env_steps"]}
            | {"settings": digest(config)}
        )
    return rows


def figures(group: list[dict[str, str]], limited: str) -> dict[str, str | int]:
    """What the lines of some tasks say together; "" for columns that their version did not have."""

    def values(column: str) -> np.ndarray:
        return np.array([float(line[column]) for line in group if column in line])

    def ends(name: str, interval: tuple[float, float]) -> dict[str, str]:
        return {f"{name}_{end}": shown(x) for end, x in zip(("low", "high"), interval, strict=True)}

    within, above = int(values("satisfied").sum()), 1 - values("episodes_within")
    means = ("return", "episode_cost", "discounted_cost", "cost_limit", "deterministic_return", "deterministic_cost")
    worst = {"worst_cost": limited, "worst_excess": "excess", "deterministic_worst_excess": "deterministic_excess"}
    kept = values("deterministic_satisfied")
    return (
        {"within": within, **ends("within", share_interval(within, len(group)))}
        | {name: shown(float(values(name).mean())) if values(name).size else "" for name in means}
        | ends("return", mean_interval(values("return")))
        | ends("cost", mean_interval(values(limited)))
        | {"episodes_above": shown(above.mean()) if above.size else "", **ends("episodes_above", mean_interval(above))}
        | {name: shown(values(column).max()) if values(column).size else "" for name, column in worst.items()}
        | {"deterministic_within": int(kept.sum()) if kept.size else ""}
    )


def shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4g}"


def write_table(path: Path, rows: Iterable[Sequence[dict[str, object]]]) -> None:
    """All rows at once or none: what is kept may be on no other machine."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for of_run in rows:
            writer.writerows(of_run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the CSV's rows of runs that are not here")
    given = parser.parse_args()
    study, table = given.study, given.study.with_suffix(".csv")
    try:
        plan = read_study(study)
        for planned in plan:  # a mistake in the last variant should not be found after hours
            budget.plan(planned.config, build(planned.config))
    except ConfigError as error:
        raise SystemExit(f"learning: {error}") from None
    run_dirs = [RUNS / study.stem / f"{planned.variant}-seed{planned.config.seed}" for planned in plan]
    kept = read_lines(table) if given.keep and table.exists() else []
    rows: dict[Path, list[dict[str, object]]] = {  # in the study's order
        run_dir: [row for row in kept if (row["variant"], row["seed"]) == (planned.variant, str(planned.config.seed))]
        for planned, run_dir in zip(plan, run_dirs, strict=True)
    }
    for planned, run_dir in zip(plan, run_dirs, strict=True):
        if rows[run_dir] and not run_dir.exists():
            if any(row.get("settings") not in (None, "", digest(planned.config)) for row in rows[run_dir]):
                raise SystemExit(
                    f"{table}: {planned.variant} was run with other settings; delete its rows or change them"
                )
            continue
        print(f"{run_dir}", flush=True)
        run = trained(planned.config, run_dir)
        if not run.finished:
            raise SystemExit("interrupted; the same command goes on")
        evaluated(run, planned.tuning)
        jax.clear_caches()
        rows[run_dir] = summary(planned.variant, run_dir)
        write_table(table, rows.values())


if __name__ == "__main__":
    main()
