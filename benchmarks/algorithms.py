"""What a meta-iteration of every algorithm costs, in one run: time, memory, environment steps.

    python benchmarks/algorithms.py [--preset point-circle] [--rounds 3] [--out benchmarks/algorithms.csv]

All have the preset's numbers: M tasks, K inner steps and B episodes a rollout; pooled algorithms have one rollout
instead of K + 1. Memory is what XLA reserves for the compiled meta-iteration beside its arguments and results. The
rounds alternate between the algorithms, so that a machine that drifts favours none; times are medians. Compilation
is not in them and has a column of its own.
"""

import argparse
import csv
import os
import statistics
import time
from pathlib import Path

import jax

from metacpo.algorithms.registry import ALGORITHMS
from metacpo.config.schema import Config
from metacpo.training.iteration import meta_iteration
from metacpo.training.setup import build
from metacpo.training.state import init_state

COLUMNS = ("algorithm", "seconds", "ratio", "MiB", "env_steps", "compile_seconds")


def compiled(name: str, preset: str):
    """(the algorithm's meta-iteration, its first state, seconds that compilation took)."""
    setup = build(Config.preset(preset, algorithm=name))
    state = init_state(setup, 0)
    begin = time.perf_counter()
    with jax.default_matmul_precision("highest"):
        executable = jax.jit(meta_iteration, static_argnums=0).lower(setup, state).compile()
    return setup, executable, state, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="point-circle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/algorithms.csv"))
    args = parser.parse_args()
    programs = {name: compiled(name, args.preset) for name in ALGORITHMS}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    steps = {}
    for _ in range(1 + args.rounds):  # the first warms up
        for name, (setup, executable, state, _) in programs.items():
            begin = time.perf_counter()
            _, row = jax.block_until_ready(executable(state))
            seconds[name].append(time.perf_counter() - begin)
            meta = setup.meta
            steps[name] = round(meta.tasks * (meta.steps + 1) * meta.episodes * float(row["Metrics/EpLen"]))
    least = statistics.median(seconds["meta-cpo"][1:])
    print(f"{args.preset}, {os.cpu_count()} cores")
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, (_, executable, _, compiling) in programs.items():
            took = statistics.median(seconds[name][1:])
            memory = executable.memory_analysis().temp_size_in_bytes / 2**20
            row = (name, f"{took:.3g}", f"{took / least:.3g}", f"{memory:.4g}", steps[name], f"{compiling:.3g}")
            print("{:16s} {:>8s} s {:>6s} x {:>8s} MiB {:>8d} steps, compiled in {} s".format(*row), flush=True)
            writer.writerow(row)


if __name__ == "__main__":
    main()
