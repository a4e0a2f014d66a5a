"""Which of m multipliers are positive: a quadratic program in them, solved by pivots on a table of size m.

    minimise ½ηᵀKη − dᵀη   subject to   η ≥ 0,      K positive semidefinite

It is the dual of the projection of a point on {c + Bx ≤ 0}: K holds the rows' inner products, v = d − Kη their
values c + Bx at the x that belongs to η, and η_j > 0 only where v_j = 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.dense import like, sweep


class Pivots(eqx.Module):
    """η ≥ 0, the rows A where it may be positive (v_A = 0), and the table after the rows of A have entered.

    `table` = [K, R] swept by A (`metacpo.solver.dense.sweep`). `empty`: some v_j > 0 whatever η: no x satisfies
    all rows. `count` pivots; they ended before the limit if `converged`.
    """

    eta: Float[Array, " m"]
    rows: Bool[Array, " m"]
    table: Float[Array, "m mk"]
    empty: Bool[Array, ""]
    count: Int[Array, ""]
    converged: Bool[Array, ""]

    def solved(self) -> Float[Array, "m k"]:
        """K_AA⁻¹R_A, and 0 outside of A."""
        m = self.rows.shape[0]
        return jnp.where(self.rows[:, None], self.table[:, m:], 0)


def rank_tolerance(dtype) -> float:
    """A row is dependent on those of A if its squared distance from their span is this part of its square."""
    return 100 * float(jnp.finfo(dtype).eps)


def pivot_limit(m: int) -> int:
    """Pivots at most: every row enters a few times and leaves as often. Random problems need about 2|A|."""
    return 8 * m + 16


def positive_multipliers(
    K: Float[Array, "m m"], R: Float[Array, "m k"], a: Float[Array, " k"], allowed: Bool[Array, " m"]
) -> Pivots:
    """The program above for d = Ra, by the dual active-set method of Goldfarb and Idnani (1983).

    One row p with v_p > 0 after the other enters: η_p grows by u and η_A shrinks by uz, z = K_AA⁻¹K_Ap, which
    keeps v_A = 0 and lowers v_p by uσ, σ = K_pp − K_pA z. Either v_p = 0 is reached and p joins A, or an η_j
    is 0 before that and j leaves. The dual value rises with every row that joins: no set A comes twice.

    Rows with `allowed` False take no part. K_jj > 0 for the others. A row is held if v_j ≤ 100 eps(1 + max|d|);
    one that depends on A (σ ≤ `rank_tolerance`·K_jj) to the root of that tolerance times 1 + max|R_j1|, and it
    never joins beside A: of parallel rows only the tightest is in A.
    """
    m = K.shape[0]
    d = R @ a
    eps = float(jnp.finfo(K.dtype).eps)
    scale = 1 + jnp.max(jnp.abs(jnp.where(allowed, d, 0)))
    tight = 100 * eps * scale
    loose = tight + rank_tolerance(K.dtype) ** 0.5 * (1 + jnp.max(jnp.abs(jnp.where(allowed, R[:, 0], 0))))
    size = jnp.where(allowed, jnp.diagonal(K), 1)

    def violated(s: Pivots) -> tuple[Float[Array, " m"], Bool[Array, " m"]]:
        """v where the row waits to enter, else −∞; and which rows depend on A."""
        dependent = ~s.rows & (jnp.diagonal(s.table) <= rank_tolerance(K.dtype) * size)
        v = d - K @ s.eta
        waits = allowed & ~s.rows & (v > jnp.where(dependent, loose, tight))
        return jnp.where(waits, v, -jnp.inf), dependent

    def unfinished(state: tuple[Pivots, Int[Array, ""]]) -> Bool[Array, ""]:
        s, _ = state
        return ~s.converged & (s.count < pivot_limit(m))

    def pivot(state: tuple[Pivots, Int[Array, ""]]) -> tuple[Pivots, Int[Array, ""]]:
        s, entering = state
        v, dependent = violated(s)
        # The row that has begun to enter goes on until it has joined, or waits no longer.
        p = jnp.where((entering >= 0) & (v[entering] > 0), entering, jax.lax.argmax(v, 0, jnp.int32))
        satisfied = v[p] == -jnp.inf

        z = jnp.where(s.rows, s.table[:, p], 0)
        ratio = jnp.where(z > 100 * eps, s.eta / jnp.where(z > 100 * eps, z, 1), jnp.inf)
        j = jax.lax.argmin(ratio, 0, jnp.int32)
        full = jnp.where(dependent[p], jnp.inf, v[p] / jnp.where(dependent[p], 1, s.table[p, p]))
        u = jnp.minimum(full, ratio[j])
        empty, joins = ~satisfied & (u == jnp.inf), full <= ratio[j]
        moves = ~satisfied & ~empty
        u = jnp.where(moves, u, 0)

        k, sign = jnp.where(joins, p, j), jnp.where(joins, jnp.ones((), K.dtype), -1)
        rows = jnp.where(moves, s.rows.at[k].set(joins), s.rows)
        table = jnp.where(moves, sweep(s.table, k, sign), s.table)
        eta = jnp.maximum((s.eta - u * z).at[p].add(u), 0)
        exact = jnp.maximum(table[:, m:] @ a, 0)  # K_AA⁻¹d_A: rounding does not add up over the pivots
        eta = jnp.where(rows, jnp.where(joins, exact, eta), jnp.where(jnp.arange(m, dtype=jnp.int32) == p, eta, 0))
        eta = jnp.where(moves, eta, s.eta)
        after = Pivots(eta, rows, table, s.empty | empty, s.count + moves.astype(jnp.int32), ~moves)
        return after, jnp.where(moves & ~joins, p, -1).astype(jnp.int32)

    table = jnp.concatenate([K, R], axis=1)
    no, count = like(d, False), like(d, 0)
    start = Pivots(jnp.zeros_like(d), like(d, False, (m,)), table, no, count, no)
    return jax.lax.while_loop(unfinished, pivot, (start, count - 1))[0]
