"""Small systems without LAPACK, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.solver.dense import MaskedSystem, factor, inverse, sweep


def square(m, seed=0):
    """A positive definite matrix [m, m]."""
    root = np.random.default_rng(seed).normal(size=(m, m + 2))
    return root @ root.T


@pytest.mark.parametrize("m", [1, 5])
def test_inverse_needs_its_pivots_only(x64, m):
    matrix = np.random.default_rng(m).normal(size=(m, m))
    matrix[0, 0] = 0 if m > 1 else 2  # no pivot where elimination begins
    np.testing.assert_allclose(inverse(jnp.asarray(matrix)), np.linalg.inv(matrix), rtol=1e-10)


def test_a_masked_system_is_that_of_its_rows(x64):
    M, v, mask = square(5), np.random.default_rng(1).normal(size=(5, 2)), np.array([1, 0, 1, 1, 0], bool)
    system = MaskedSystem.of(jnp.asarray(M), jnp.asarray(mask))
    z, part = np.asarray(system.solve(jnp.asarray(v))), M[np.ix_(mask, mask)]
    np.testing.assert_allclose(z[mask], np.linalg.solve(part, v[mask]), rtol=1e-10)
    assert not np.any(z[~mask])
    np.testing.assert_allclose(system.condition, np.linalg.cond(part, np.inf), rtol=1e-10)


def test_its_derivative_is_that_of_the_inverse(x64):
    """dz_A = −M_AA⁻¹ dM_AA z_A, in both modes."""
    M, dM, mask = square(4), square(4, seed=1), np.array([1, 1, 0, 1], bool)
    v = jnp.asarray(np.arange(1.0, 5.0)[:, None])

    def solution(M):
        return MaskedSystem.of(M, jnp.asarray(mask)).solve(v)[:, 0]

    z, part = np.asarray(solution(jnp.asarray(M))), np.ix_(mask, mask)
    expected = np.zeros(4)
    expected[mask] = -np.linalg.solve(M[part], dM[part] @ z[mask])
    forward = jax.jvp(solution, (jnp.asarray(M),), (jnp.asarray(dM),))[1]
    np.testing.assert_allclose(forward, expected, rtol=1e-9, atol=1e-12)
    (reverse,) = jax.vjp(solution, jnp.asarray(M))[1](jnp.ones(4))
    np.testing.assert_allclose(jnp.sum(reverse * dM), np.sum(expected), rtol=1e-9)


@pytest.mark.parametrize("rank", [2, 4])
def test_a_factor_of_a_semidefinite_matrix(x64, rank):
    root = np.random.default_rng(2).normal(size=(4, rank))
    L = factor(jnp.asarray(root @ root.T))
    np.testing.assert_allclose(L @ L.T, root @ root.T, rtol=0, atol=1e-12)


def test_a_sweep_solves_for_the_rows_that_entered_and_takes_them_out_again(x64):
    K, R = square(4), np.random.default_rng(3).normal(size=(4, 2))
    start, one = jnp.asarray(np.hstack([K, R])), jnp.float64(1)
    table = start
    for row in (2, 0):
        table = sweep(table, jnp.int32(row), one)
    A, rest = [0, 2], [1, 3]
    solved = np.linalg.solve(K[np.ix_(A, A)], R[A])
    np.testing.assert_allclose(table[np.array(A), 4:], solved, rtol=1e-10)
    np.testing.assert_allclose(table[np.array(rest), 4:], R[rest] - K[np.ix_(rest, A)] @ solved, rtol=1e-10)
    for row in (2, 0):
        table = sweep(table, jnp.int32(row), -one)
    np.testing.assert_allclose(table, start, rtol=1e-9, atol=1e-12)
