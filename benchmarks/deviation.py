"""Trained meta-policies with another standard deviation of their actions; one CSV of what updates then make of them.

    python benchmarks/deviation.py runs/thruster/learned-std-seed* runs/thruster/first-order-learned-std-seed*

Takes runs of the default policy with `learn_std = true`, leaves the network for the mean as it is, and sets the
deviation to each of DEVIATIONS: what is gained was lost by what training did to the deviation, and by nothing else.
Writes benchmarks/deviation.csv: means over TUNING_TASKS held-out tasks of TUNING_SEED (no result is reported on them),
with actions drawn and with mean actions; `learned` is the run as it is.
"""

import argparse
import csv
import dataclasses
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from metacpo.adaptation.evaluate import evaluate
from metacpo.policies import GaussianPolicy
from metacpo.training.runs import Run, open_run

DEVIATIONS = (0.3, 0.4, 0.5, 0.6)
TUNING_SEED, TUNING_TASKS = 1, 100
COLUMNS = ("run", "std", "step", "tasks", "return", "deterministic_return", "within")


def lines(run: Run, std: float | None) -> list[dict[str, object]]:
    """One line after each update, with this deviation in the place of the run's own."""
    size, state = run.setup.env.action_size, run.state
    own = float(jnp.mean(jnp.exp(state.theta[-size:])))
    if std is not None:
        state = eqx.tree_at(lambda s: s.theta, state, state.theta.at[-size:].set(jnp.float32(np.log(std))))
    settings = dataclasses.replace(run.config.adaptation, tasks=TUNING_TASKS)
    rows = evaluate(run.setup, state, settings, ("held-out",), TUNING_SEED).rows
    found = []
    for step in range(settings.steps + 1):
        group = [row for row in rows if row.step == step]
        means = {"return": "episode_return", "deterministic_return": "deterministic_return", "within": "satisfied"}
        values = {column: f"{np.mean([getattr(row, name) for row in group]):.3g}" for column, name in means.items()}
        label = f"learned {own:.2f}" if std is None else std
        found.append({"run": run.path.name, "std": label, "step": step, "tasks": len(group)} | values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+")
    table = []
    for path in parser.parse_args().runs:
        run = open_run(path)
        policy = run.setup.policy
        if not (isinstance(policy, GaussianPolicy) and policy.learn_std):
            raise SystemExit(f"{path}: its deviation is no parameter; allowed: runs with learn_std = true")
        for std in (None, *DEVIATIONS):
            table += lines(run, std)
            print(table[-1], flush=True)
    with Path(__file__).with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
