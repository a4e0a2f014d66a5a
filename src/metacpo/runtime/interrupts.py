"""Signals that end a run in time, whatever it is doing.

Python answers a signal in its main thread, between two of its own instructions: not while that thread compiles or
computes. So the work is done in a worker thread, and the main one waits, ready to leave without the work.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

GRACE = 5.0  # seconds that a running meta-iteration may still take; SLURM and Kubernetes kill after 30 by default
POLL = 0.1  # seconds
THREAD = "metacpo-worker"
T = TypeVar("T")


class Abandoned(Exception):
    """A signal came and the work was not done in time. It goes on in its thread, but nobody waits for it."""


@contextmanager
def worker() -> Iterator[ThreadPoolExecutor]:
    """One thread to work in; at the end it is not waited for."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def run_interruptibly(pool: ThreadPoolExecutor, stop: threading.Event, work: Callable[[], T], grace: float) -> T:
    """The result of `work`, done by the worker. Raises Abandoned `grace` seconds after `stop` is set."""
    future = pool.submit(work)
    deadline = None
    while not wait([future], timeout=POLL).done:  # wakes up although another thread was handed the signal
        if not stop.is_set():
            continue
        deadline = time.monotonic() + grace if deadline is None else deadline
        if time.monotonic() >= deadline:
            raise Abandoned
    return future.result()


def still_working() -> bool:
    """Whether a worker is left whose result nobody waits for; the end of the process would."""
    return any(thread.name.startswith(THREAD) for thread in threading.enumerate())


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """The event that SIGINT and SIGTERM set. A second signal acts as it would without us: at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield stop
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
