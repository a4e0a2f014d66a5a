"""Roots with exact values and bounded slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver.bounded import bounded_quotient, bounded_sqrt

FLOOR, TINY = 1e-2, 1e-12


@pytest.mark.parametrize("x", [0.5, 1e-2])
def test_above_the_floor_they_are_the_plain_functions(x64, x):
    x, floor, tiny = jnp.array(x), jnp.array(FLOOR), jnp.array(TINY)
    a = jnp.array([2.0, -3.0])
    np.testing.assert_allclose(bounded_sqrt(x, floor), np.sqrt(x))
    np.testing.assert_allclose(jax.grad(bounded_sqrt)(x, floor), 0.5 / np.sqrt(x))
    np.testing.assert_allclose(bounded_quotient(a, x, floor, tiny), a / np.sqrt(x))
    for mode in (jax.jacfwd, jax.jacrev):
        by_a, by_x = mode(bounded_quotient, (0, 1))(a, x, floor, tiny)
        np.testing.assert_allclose(by_a, np.eye(2) / np.sqrt(x))
        np.testing.assert_allclose(by_x, -0.5 * a * x**-1.5)


@pytest.mark.parametrize("x", [1e-5, 0.0, -1e-9])
def test_below_the_floor_the_slope_is_that_at_the_floor(x64, x):
    x, floor, tiny = jnp.array(x), jnp.array(FLOOR), jnp.array(TINY)
    np.testing.assert_allclose(bounded_sqrt(x, floor), np.sqrt(max(x, 0)))
    np.testing.assert_allclose(jax.grad(bounded_sqrt)(x, floor), 5.0)
    for mode in (jax.jacfwd, jax.jacrev):
        by_a, by_x = mode(bounded_quotient, (0, 1))(jnp.array([2.0]), x, floor, tiny)
        np.testing.assert_allclose(by_a, [[10.0]])
        np.testing.assert_allclose(by_x, [-1000.0])


def test_second_derivatives_are_finite_at_zero():
    zero, floor, tiny = jnp.float32(0), jnp.float32(FLOOR), jnp.float32(TINY)
    assert jnp.isfinite(jax.hessian(bounded_sqrt)(zero, floor))
    assert jnp.isfinite(jax.hessian(bounded_quotient, 1)(jnp.float32(1), zero, floor, tiny))
