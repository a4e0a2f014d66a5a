"""Strictness for every test: no implicit dtype promotion; float64 only where a test asks for it."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Run one test in float64 (oracles and finite differences need it)."""
    with jax.enable_x64(True):
        yield
