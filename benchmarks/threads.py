"""How long a meta-iteration takes with more or fewer threads in XLA's pool, beside MuJoCo's own threads.

    python benchmarks/threads.py [PRESET ...]

Prints the median of four meta-iterations of each preset with each number of threads, and its ratio to that of the
command line's two, and writes benchmarks/threads.csv. Each number has a process of its own, since
JAX reads it once.
"""

import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from metacpo.runtime.threads import POOL, THREADS
from metacpo.training import loop

NUMBERS = (1, 2, 4, 8, 16)
OUT = Path(__file__).with_suffix(".csv")


def measure(preset: str) -> float:
    """Seconds of one meta-iteration in this process, without compilation."""
    import jax
    from rich.console import Console

    from metacpo.config.schema import Config
    from metacpo.training.setup import build
    from metacpo.training.state import init_state

    setup = build(Config.preset(preset))
    state = init_state(setup, 0)
    iterate = loop.compile_iteration(setup, state, Console(quiet=True))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        state, _ = iterate(state)
        jax.block_until_ready(state.theta)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(measure(sys.argv[2]))
        return
    rows = []
    for preset in sys.argv[1:] or ["point-circle", "tabular"]:
        seconds = {}
        for number in NUMBERS:
            done = subprocess.run(
                [sys.executable, __file__, "--measure", preset],
                env=os.environ | {POOL: str(number)},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            seconds[number] = float(done.stdout.split()[-1])
        for number, taken in seconds.items():
            row = {"preset": preset, "threads": number, "cores": os.cpu_count(), "seconds": round(taken, 3)}
            rows.append(row | {"ratio": round(taken / seconds[THREADS], 3)})
            print(rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
