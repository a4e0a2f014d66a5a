"""What a meta-iteration costs, in seconds and in memory, against everything that can be made larger; in one run.

    python benchmarks/scale.py [--preset point-circle] [--axes M B K n devices] [--out benchmarks/scale.csv]

One number is changed at a time: M tasks, B episodes a batch, K inner steps, n parameters (two equal hidden layers, the
metric of the KL and the Euclidean one) and the devices that the tasks are shared by. `seconds` is the median of ROUNDS
iterations after the first; `temporary` what XLA sets aside for one, in MB; `slope` that of a straight line through an
axis's points in a log-log plot: 1 is in proportion. Devices are cores of this processor, which has only so many.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from metacpo.config.schema import Config
from metacpo.runtime.devices import on_devices, provide
from metacpo.runtime.threads import fix_threads
from metacpo.training.loop import compile_iteration
from metacpo.training.setup import build
from metacpo.training.state import init_state

ROUNDS = 5
BASE = {"tasks": 4, "episodes": 6, "steps": 2}
WIDTHS = (32, 128, 256, 512, 1024)
DEVICES = (1, 2, 4, 8)
COLUMNS = ("preset", "axis", "value", "parameters", "devices", "seconds", "temporary_mb", "compilation", "slope")


@dataclass(frozen=True)
class Point:
    """One measurement: the axis, where on it, and the settings there."""

    axis: str
    value: int
    settings: dict[str, Any]
    devices: int = 1


def points(axes: tuple[str, ...], devices: int) -> Iterator[Point]:
    for axis, name in (("M", "tasks"), ("B", "episodes"), ("K", "steps")):
        if axis in axes:
            for factor in (0.5, 1, 2, 4):
                value = round(factor * BASE[name])
                yield Point(axis, value, {"meta": BASE | {name: value}})
    small = {"tasks": 2, "episodes": 4, "steps": 1}
    for metric in ("kl", "euclidean"):
        if "n" in axes:
            for width in WIDTHS:
                regions = {"inner": {"metric": metric}, "outer": {"metric": metric}}
                yield Point(f"n, {metric}", width, {"meta": small, "hidden": [width, width], **regions})
    if "devices" in axes:
        for count in (count for count in DEVICES if count <= devices):
            yield Point("devices", count, {"meta": BASE | {"tasks": 8}}, count)


def measured(preset: str, point: Point) -> dict[str, Any]:
    setup = build(Config.preset(preset, **point.settings), devices=point.devices)
    state = on_devices(init_state(setup, 0), point.devices)
    begin = time.perf_counter()
    iterate: Any = compile_iteration(setup, state, Console(quiet=True))
    compilation, seconds = time.perf_counter() - begin, []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(iterate(state))
        seconds.append(time.perf_counter() - begin)
    temporary = iterate.memory_analysis().temp_size_in_bytes / 1e6
    return {
        "preset": preset,
        "axis": point.axis,
        "value": setup.policy.size if point.axis[0] == "n" else point.value,
        "parameters": setup.policy.size,
        "devices": point.devices,
        "seconds": round(statistics.median(seconds[1:]), 4),
        "temporary_mb": round(temporary, 2),
        "compilation": round(compilation, 1),
    }


def with_slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def slope(axis: str) -> float:
        own = [row for row in rows if row["axis"] == axis]
        x, y = (np.log([float(row[name]) for row in own]) for name in ("value", "seconds"))
        return round(float(np.polyfit(x, y, 1)[0]), 2) if len(own) > 1 else float("nan")

    return [row | {"slope": slope(row["axis"])} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="point-circle")
    parser.add_argument("--axes", nargs="+", default=("M", "B", "K", "n", "devices"))
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    given, cores = parser.parse_args(), os.cpu_count() or 1
    fix_threads()
    provide(cores)
    rows = []
    for point in points(tuple(given.axes), cores):
        rows.append(measured(given.preset, point))
        print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
        jax.clear_caches()
        if given.out:
            with given.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(with_slopes(rows))
    for row in {row["axis"]: row for row in with_slopes(rows)}.values():
        print(f"{row['axis']}: slope {row['slope']}")


if __name__ == "__main__":
    main()
