"""Does a long training grow? Memory, file descriptors, threads and compilations of one process, over its iterations.

    python benchmarks/long_run.py                      2,000 meta-iterations, a few minutes; writes long_run.csv
    python benchmarks/long_run.py --iterations 60 --every 10 --out short.csv

Everything of a run is exercised (warm-up, metrics, TensorBoard, display, checkpoints), at sizes that make an iteration
cheap: what grows, grows with the number of iterations. Exits with 1 if, after the first sample at which the warm-up is
over, memory grows by more than 5 %, or descriptors, compilations or threads grow at all. TensorStore's pool, which
writes the checkpoints, ends idle threads and starts others when it is busy: these count by themselves, and eight are
allowed.
"""

import argparse
import contextlib
import csv
import os
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

from metacpo.config.schema import Config
from metacpo.training import loop
from metacpo.training.progress import PlainProgress, Row

MEMORY_GROWTH = 1.05
POOL = "ts_pool_worker", 8  # TensorStore's threads, and the most that any of our runs has had
WARMUP = 10
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What the process holds after a meta-iteration."""

    iteration: int
    resident_mib: float
    descriptors: int
    threads: int  # of the operating system, without TensorStore's pool; the most since the sample before
    python_threads: int  # also the most
    pool: int  # TensorStore's threads, also the most
    compilations: int  # since the start, of all functions


class Sampler:
    """The usual display of a training, which takes a sample every `every` iterations."""

    def __init__(self, display: PlainProgress, compiled: dict[str, int], every: int):
        self.samples: list[Sample] = []
        self._display, self._compiled, self._every = display, compiled, every
        self._threads: tuple[int, ...] = 0, 0, 0

    def __enter__(self) -> "Sampler":
        self._display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.__exit__(*error)

    def show(self, row: Row) -> None:
        self._display.show(row)
        self._threads = tuple(map(max, self._threads, count_threads()))
        if row.iteration % self._every == 0:
            self.samples.append(sample(row.iteration, self._threads, sum(self._compiled.values())))
            self._threads = 0, 0, 0


def count_threads() -> tuple[int, int, int]:
    """All but the pool's, Python's of them, and the pool's."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.append(path.read_text().strip())
    pool = names.count(POOL[0])
    return len(names) - pool, threading.active_count(), pool


def sample(iteration: int, threads: tuple[int, ...], compilations: int) -> Sample:
    """Linux's own numbers about this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        iteration=iteration,
        resident_mib=round(pages * PAGE / 2**20, 1),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threads[0],
        python_threads=threads[1],
        pool=threads[2],
        compilations=compilations,
    )


def tiny(iterations: int) -> Config:
    """Navigation as in the preset, with few tasks, updates and episodes."""
    return Config.preset(
        "navigation",
        iterations=iterations,
        hidden=(8,),
        checkpoint_every=5,
        warmup=dict(iterations=WARMUP, tasks=2, episodes=2),
        meta=dict(tasks=2, steps=1, episodes=2),
        inner=dict(cg_iterations=3),
        outer=dict(cg_iterations=3),
    )


def measure(iterations: int, every: int) -> list[Sample]:
    """The samples of one training in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, loop.count_compilations() as compiled:
        made: list[Sampler] = []

        def sampler(console) -> Sampler:
            made.append(Sampler(PlainProgress(console), compiled, every))
            return made[-1]

        with patch.object(loop, "progress", sampler):
            loop.train(tiny(iterations), Path(folder) / "run")
    return made[0].samples


def growth(samples: list[Sample]) -> list[str]:
    """One line for each bound that is broken after the first sample."""
    first, faults = samples[0], []
    most = max(later.resident_mib for later in samples)
    if most > MEMORY_GROWTH * first.resident_mib:
        faults.append(f"memory grows from {first.resident_mib} to {most} MiB")
    for name in ("descriptors", "threads", "python_threads", "compilations"):
        start, most = getattr(first, name), max(getattr(later, name) for later in samples)
        if most > start:
            faults.append(f"{name} grow from {start} to {most}")
    if (most := max(each.pool for each in samples)) > POOL[1]:
        faults.append(f"TensorStore's pool has {most} threads")
    return faults


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--iterations", type=int, default=2000)
    options.add_argument("--every", type=int, default=100)
    options.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = options.parse_args()
    rows = [asdict(each) for each in measure(args.iterations, args.every)]
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in ({name: name for name in rows[0]}, *rows):
        print("  ".join(f"{row[name]:>{len(name)}}" for name in rows[0]))
    faults = growth([Sample(**row) for row in rows if row["iteration"] > WARMUP])
    for fault in faults:
        print(f"long_run: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
