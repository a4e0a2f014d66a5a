"""Strictness for every test: no implicit dtype promotion; float64 only where a test asks for it.

Most of a test's time is compilation. So one folder keeps every compiled function of a session, for both of the
workers and for the processes that tests start; a program that calls MuJoCo cannot be kept.
"""

import os
import tempfile

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 4)  # for the tests of several; the others use the first

_KEPT = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
_FOLDER = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the first process makes it, and the others inherit its name
    _FOLDER = tempfile.TemporaryDirectory(prefix="metacpo-compiled-")
    _KEPT |= {"jax_compilation_cache_dir": _FOLDER.name}
    os.environ |= {name.upper(): str(value) for name, value in _KEPT.items()}
for name, value in _KEPT.items():
    jax.config.update(name, value)


@pytest.fixture
def x64():
    """Run one test in float64 (oracles and finite differences need it)."""
    with jax.enable_x64(True):
        yield
