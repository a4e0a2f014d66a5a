"""Products of full precision, and systems of the size of the constraints, m ≤ a few tens, without LAPACK.

JAX's CPU factorisations run batched LAPACK calls, and two of those that become ready at once wait for each other
for ever on a machine with two cores (JAX 0.10). Loops over m plain array operations have no such trouble, and vmap
makes them wider instead of more.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def dot(u: Array, v: Array) -> Array:
    """u·v (`jnp.dot`) without the reduced precision that accelerators use by default: A and B subtract such numbers."""
    return jnp.dot(u, v, precision=jax.lax.Precision.HIGHEST)


class MaskedSystem(eqx.Module):
    """M_AA z_A = v_A, z = 0 outside of A, the rows where `mask` holds. `matrix` need not be symmetric."""

    matrix: Float[Array, "m m"]
    mask: Bool[Array, " m"]
    inverse: Float[Array, "m m"]

    @staticmethod
    def of(matrix: Float[Array, "m m"], mask: Bool[Array, " m"]) -> "MaskedSystem":
        M = jnp.where(mask[:, None] & mask, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
        return MaskedSystem(M, mask, inverse(jax.lax.stop_gradient(M)))

    @property
    def condition(self) -> Float[Array, ""]:
        """‖M_AA‖·‖M_AA⁻¹‖ ≥ 1 by the largest row sums; constant under differentiation."""

        def norm(A: Float[Array, "m m"]) -> Float[Array, ""]:
            inside = jnp.where(self.mask[:, None] & self.mask, A, 0)
            return jnp.max(jnp.sum(jnp.abs(inside), axis=1))

        return jnp.maximum(1, norm(jax.lax.stop_gradient(self.matrix)) * norm(self.inverse))

    def solve(self, rhs: Float[Array, "m k"]) -> Float[Array, "m k"]:
        """Differentiated implicitly, dz_A = M_AA⁻¹(dv_A − dM_AA z_A), to any order."""
        M, inverse = self.matrix, self.inverse
        return jax.lax.custom_linear_solve(
            lambda z: dot(M, z),
            jnp.where(self.mask[:, None], rhs, 0),
            solve=lambda _, v: _refined(jax.lax.stop_gradient(M), inverse, v),
            transpose_solve=lambda _, v: _refined(jax.lax.stop_gradient(M).T, inverse.T, v),
        )


def _refined(M: Float[Array, "m m"], inverse: Float[Array, "m m"], v: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """inverse·v, and once more for what is left of v."""
    z = dot(inverse, v)
    return z + dot(inverse, v - dot(M, z))


def inverse(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """By Gauss-Jordan elimination with row pivoting; a column without a pivot is skipped."""
    m = matrix.shape[0]
    rows = jnp.arange(m, dtype=jnp.int32)

    def eliminate(i: Int[Array, ""], T: Float[Array, "m mm"]):
        pivot = jax.lax.argmax(jnp.where(rows >= i, jnp.abs(T[:, i]), -1), 0, jnp.int32)
        T = T[jnp.where(rows == i, pivot, jnp.where(rows == pivot, i, rows))]  # swap
        row = T[i] / jnp.where(T[i, i] == 0, 1, T[i, i])
        return jnp.where((rows == i)[:, None], row, T - T[:, i][:, None] * row)

    start = jnp.concatenate([matrix, jnp.eye(m, dtype=matrix.dtype)], axis=1)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(m), eliminate, start)[:, m:]


def factor(S: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """L with LLᵀ = S, S positive semidefinite: Cholesky, the largest remaining diagonal first, no triangle.

    |Lᵀη|² keeps half of the digits that ηᵀSη loses where η is long and Sη is not.
    """

    def column(i: Int[Array, ""], state: tuple[Float[Array, "m m"], Float[Array, "m m"]]):
        rest, L = state
        j = jax.lax.argmax(jnp.diagonal(rest), 0, jnp.int32)
        usable = rest[j, j] > 10 * float(jnp.finfo(S.dtype).eps) * jnp.max(jnp.diagonal(S))
        col = jnp.where(usable, rest[:, j] / jnp.sqrt(jnp.where(usable, rest[j, j], 1)), 0)
        return rest - col[:, None] * col, L.at[:, i].set(col)

    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(S.shape[0]), column, (S, jnp.zeros_like(S)))[1]


def sweep(T: Float[Array, "m k"], i: Int[Array, ""], sign: Float[Array, ""]) -> Float[Array, "m k"]:
    """One pivot on T[i, i]: row i of the system enters (`sign` 1) or leaves (−1) the set A of solved rows.

    From T = [K, R] on, after the rows of A have entered,

        T_AA = −K_AA⁻¹,   T_Aj = K_AA⁻¹K_Aj,   T_jA = K_jA K_AA⁻¹,   T_jk = K_jk − K_jA K_AA⁻¹K_Ak    (j, k not in A)

    and the columns R likewise: K_AA⁻¹R_A in A, R_j − K_jA K_AA⁻¹R_A outside. Entering needs T[i, i] > 0.
    """
    D = T[i, i]
    row, column = T[i], T[:, i]
    m = T.shape[0]
    here = jnp.arange(m, dtype=jnp.int32) == i
    swept = T - column[:, None] * row / D
    swept = jnp.where((jnp.arange(T.shape[1], dtype=jnp.int32) == i), sign * column[:, None] / D, swept)
    swept = jnp.where(here[:, None], sign * row / D, swept)
    return swept.at[i, i].set(-1 / D)


def like(x: Array, value: bool | int, shape: tuple[int, ...] = ()) -> Array:
    """A constant (bool or int32) for the carry of a loop over what comes from x.

    Inside shard_map a value that differs from device to device has another type than one that does not, and a carry
    must begin with the type that it ends with: this one has that of x.
    """
    return jnp.full_like(x, value, bool if isinstance(value, bool) else jnp.int32, shape=shape)
