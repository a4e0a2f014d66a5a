"""How many threads XLA's pool on CPU has: part of what a run computes, so no matter of the machine."""

import os

POOL = "PJRT_NPROC"  # XLA's name, read when JAX makes its CPU client
# XLA cuts a loop over a large array into as many parts as its pool has threads, and the cut decides how some numbers
# are rounded: another number is another run. More than two have not made an iteration faster on two cores
# (benchmarks/threads.csv).
THREADS = 2


def fix_threads() -> None:
    """The same number on every machine, unless the user has chosen one. To be called before JAX's first operation."""
    os.environ.setdefault(POOL, str(THREADS))
