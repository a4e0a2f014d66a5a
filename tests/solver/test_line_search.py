"""The line search: the largest accepted step length, in every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver import backtrack


@pytest.mark.parametrize(
    ("limit", "alpha", "accepted", "count"),
    [
        (2.0, 1.0, True, 0),
        (1.0, 1.0, True, 0),
        (0.3, 0.25, True, 2),
        (0.125, 0.125, True, 3),
        (0.1, 0.0, False, 4),
    ],
)
def test_largest_accepted_length(limit, alpha, accepted, count):
    answer = backtrack(lambda a: (a <= limit, a), 0.5, 3)
    assert answer[:3] == (alpha, accepted, count)


def test_lengths_are_tried_in_order_and_not_after_success():
    """Acceptance need not be monotone: a window (0.2, 0.6) is met first at ½, though ¼ lies in it too."""
    assert backtrack(lambda a: ((a > 0.2) & (a < 0.6), ()), 0.5, 10) == (0.5, True, 1, ())


def test_vmap_and_jit():
    limits = jnp.array([2.0, 0.3, 0.01])
    search = jax.jit(jax.vmap(lambda limit: backtrack(lambda a: (a <= limit, 10 * a), 0.5, 3)))
    alpha, accepted, count, outcome = search(limits)
    np.testing.assert_array_equal(alpha, [1.0, 0.25, 0.0])
    np.testing.assert_array_equal(accepted, [True, True, False])
    np.testing.assert_array_equal(count, [0, 2, 4])
    np.testing.assert_array_equal(outcome, [10.0, 2.5, 1.25])  # of the last trial, accepted or not


def test_nan_is_not_accepted():
    assert backtrack(lambda a: (a * jnp.float32(jnp.nan) < 1, ()), 0.5, 2) == (0.0, False, 3, ())


def test_length_is_constant_under_differentiation():
    def moved(x):
        alpha, *_ = backtrack(lambda a: (jnp.sin(a * x) ** 2 < 0.1, ()), 0.5, 10)
        return alpha * x**2

    x = jnp.float32(2.0)
    alpha = moved(x) / x**2
    assert 0 < alpha < 1
    np.testing.assert_allclose(jax.grad(moved)(x), 2 * alpha * x)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(moved))(x), 2 * alpha * x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_follows_the_dtype_of_what_it_multiplies(x64, dtype):
    step = jnp.ones(3, dtype)
    alpha, *_ = backtrack(lambda a: (jnp.sum(a * step) < 1, ()), 0.5, 5)
    assert (alpha * step).dtype == dtype
