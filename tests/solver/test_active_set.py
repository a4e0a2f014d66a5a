"""The search for the rows that bind, against SciPy's non-negative least squares."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from metacpo.solver.active_set import positive_multipliers

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("m", [1, 6])
def test_multipliers_are_those_of_non_negative_least_squares(x64, m):
    """min ½ηᵀKη − dᵀη over η ≥ 0 is min ½‖Lᵀη − L⁻¹d‖² for K = LLᵀ."""
    rng, one = np.random.default_rng(m), jnp.ones(1)
    root = rng.normal(size=(100, m, m + 2))
    K, d = root @ np.swapaxes(root, 1, 2), rng.normal(size=(100, m))
    search = quick_jit(jax.vmap(lambda K, d: positive_multipliers(K, d[:, None], one, jnp.ones(m, bool))))
    found = search(jnp.asarray(K), jnp.asarray(d))
    assert np.all(found.converged) and not np.any(found.empty)
    for k in range(100):
        lower = np.linalg.cholesky(K[k])
        np.testing.assert_allclose(found.eta[k], nnls(lower.T, np.linalg.solve(lower, d[k]))[0], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(found.rows, found.eta > 0)


def test_rows_that_no_point_satisfies_are_found_out(x64):
    """x ≤ −1 and −x ≤ −1: v grows with every η."""
    K = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    allowed, one = jnp.ones(2, bool), jnp.ones(1)
    assert positive_multipliers(K, jnp.array([[1.0], [1.0]]), one, allowed).empty
    assert not positive_multipliers(K, jnp.array([[1.0], [-2.0]]), one, allowed).empty
    assert not positive_multipliers(K, jnp.array([[1.0], [1.0]]), one, jnp.array([True, False])).empty
