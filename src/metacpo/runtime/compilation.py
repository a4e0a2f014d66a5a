"""Where compiled functions are kept, and how many were compiled."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax

COMPILATION = "/jax/core/compile/backend_compile_duration"  # JAX's name of the event


def cache_dir() -> Path:
    """Where compiled functions are kept: METACPO_CACHE_DIR, else `metacpo` in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("METACPO_CACHE_DIR") or user / "metacpo")


def use_compilation_cache() -> None:
    """Turn JAX's persistent compilation cache on, unless the user has chosen a folder already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def count_compilations() -> Iterator[Counter[str]]:
    """How many times XLA compiled each function (or read it from the cache), by name, while this is open."""
    _listen()
    counts: Counter[str] = Counter()
    _OPEN.append(counts)
    try:
        yield counts
    finally:
        _OPEN[:] = [other for other in _OPEN if other is not counts]  # equal ones are not the same


_OPEN: list[Counter[str]] = []  # whoever counts now


@cache
def _listen() -> None:
    """Hear of every compilation, once and for good: not every JAX that we allow lets a listener go again."""

    def hear(event: str, duration_secs: float, **about: str | int) -> None:
        if event == COMPILATION:
            for counts in _OPEN:
                counts[str(about.get("fun_name", "?")).removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
