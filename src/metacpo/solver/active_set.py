"""Which rows bind, when m rows compete: the search that the closed forms of `metacpo.solver.rows` start from.

Everything here is in the units of the small problem: rows, g and region of size 1 in H⁻¹ (S_jj = q = 2δ = 1; q = 0
if g = 0). Nothing is differentiated. With t = 1/λ and μ = ν/λ, the solution is

    x(t) = −H⁻¹(tg + Bᵀμ),   the point of {c + Bx ≤ 0} nearest to −tH⁻¹g,   and t is the one with |x(t)|² = 1.

For given t the multipliers μ solve a quadratic program (`positive_multipliers`) with K = S, d = c − tr; |x(t)| grows
with t, from the shortest feasible point at t = 0 on. As long as A stays the same,

    |x(t)|² = t²(q − r_Aᵀ S_AA⁻¹ r_A) + c_Aᵀ S_AA⁻¹ c_A

whose root t is exact once its A is that of the solution. The infeasible problem has a λ that softens rows (`soften`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.dense import factor, like, sweep

SEARCH_LIMIT = 60  # evaluations of |x|² in each search: random problems need about 4, bisection alone about 50


class Pivots(eqx.Module):
    """η ≥ 0, the rows A where it may be positive (v_A = 0), and the table after the rows of A have entered.

    `table` = [K, R] swept by A (`dense.sweep`). `empty`: some v_j > 0 whatever η: no x satisfies all rows. `count`
    pivots; they ended before the limit if `converged`.
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


class _Program(eqx.Module):
    """K, a and d = Ra of `positive_multipliers`; what v_j may be beside A; and the unit of what rounding adds to it."""

    K: Float[Array, "m m"]
    a: Float[Array, " k"]
    d: Float[Array, " m"]
    allowed: Bool[Array, " m"]
    tight: Float[Array, ""]
    unit: Float[Array, ""]

    def waiting(self, s: Pivots) -> tuple[Float[Array, " m"], Bool[Array, " m"]]:
        """v where the row waits to enter, else −∞; and which rows depend on A."""
        m, size = s.rows.shape[0], jnp.where(self.allowed, jnp.diagonal(self.K), 1)
        # σ_p = K_pp − K_pA z: its terms have the size of (√K_pp + Σ_A |z_j| √K_jj)², and it their rounding.
        z = jnp.where(s.rows[:, None], jnp.abs(s.table[:, :m]), 0)
        relative = rank_tolerance(size.dtype) * (1 + 0.04 * (1 + jnp.sqrt(size) @ z / jnp.sqrt(size)) ** 2)
        dependent = ~s.rows & (jnp.diagonal(s.table) <= relative * size)
        v = self.d - self.K @ s.eta
        waits = self.allowed & ~s.rows & (v > self.tight + jnp.where(dependent, jnp.sqrt(relative) * self.unit, 0))
        return jnp.where(waits, v, -jnp.inf), dependent

    def pivot(self, s: Pivots, entering: Int[Array, ""]) -> tuple[Pivots, Int[Array, ""]]:
        """One row joins A or leaves it; and the row that is still to enter, −1 for none."""
        m, (v, dependent) = s.rows.shape[0], self.waiting(s)
        # The row that has begun to enter goes on until it has joined, or waits no longer.
        p = jnp.where((entering >= 0) & (v[entering] > 0), entering, jax.lax.argmax(v, 0, jnp.int32))
        satisfied = v[p] == -jnp.inf
        z = jnp.where(s.rows, s.table[:, p], 0)
        usable = z > 100 * float(jnp.finfo(v.dtype).eps)
        ratio = jnp.where(usable, s.eta / jnp.where(usable, z, 1), jnp.inf)
        j = jax.lax.argmin(ratio, 0, jnp.int32)
        full = jnp.where(dependent[p], jnp.inf, v[p] / jnp.where(dependent[p], 1, s.table[p, p]))
        u = jnp.minimum(full, ratio[j])
        empty, joins = ~satisfied & (u == jnp.inf), full <= ratio[j]
        moves = ~satisfied & ~empty
        u = jnp.where(moves, u, 0)

        k, sign = jnp.where(joins, p, j), jnp.where(joins, jnp.ones((), v.dtype), -1)
        rows = jnp.where(moves, s.rows.at[k].set(joins), s.rows)
        table = jnp.where(moves, sweep(s.table, k, sign), s.table)
        eta = jnp.maximum((s.eta - u * z).at[p].add(u), 0)
        exact = jnp.maximum(table[:, m:] @ self.a, 0)  # K_AA⁻¹d_A: rounding does not add up over the pivots
        eta = jnp.where(rows, jnp.where(joins, exact, eta), jnp.where(jnp.arange(m, dtype=jnp.int32) == p, eta, 0))
        eta = jnp.where(moves, eta, s.eta)
        after = Pivots(eta, rows, table, s.empty | empty, s.count + moves.astype(jnp.int32), ~moves)
        return after, jnp.where(moves & ~joins, p, -1).astype(jnp.int32)


def rank_tolerance(dtype) -> float:
    """A row depends on those of A if its squared distance σ from their span is this part of its square; and more where
    A is nearly dependent itself, which multiplies rounding: 100 eps + 4 eps(1 + Σ|z|)², of which 0.8 eps were seen."""
    return 100 * float(jnp.finfo(dtype).eps)


def positive_multipliers(
    K: Float[Array, "m m"], R: Float[Array, "m k"], a: Float[Array, " k"], allowed: Bool[Array, " m"]
) -> Pivots:
    """min ½ηᵀKη − dᵀη s.t. η ≥ 0, d = Ra, K ≥ 0, by the dual active-set method of Goldfarb and Idnani (1983).

    It is the dual of the projection of a point on {c + Bx ≤ 0}: K holds the rows' inner products, v = d − Kη their
    values c + Bx at the x that belongs to η, and η_j > 0 only where v_j = 0.

    One row p with v_p > 0 after the other enters: η_p grows by u and η_A shrinks by uz, z = K_AA⁻¹K_Ap, which keeps
    v_A = 0 and lowers v_p by uσ, σ = K_pp − K_pA z. Either v_p = 0 is reached and p joins A, or an η_j is 0 before
    that and j leaves. The dual value rises with every row that joins: no set A comes twice.

    Rows with `allowed` False take no part. K_jj > 0 for the others. A row is held if v_j ≤ 100 eps(1 + max|d|);
    one that depends on A (`rank_tolerance`) to the root of that tolerance times 1 + max|R_j1|, and it never joins
    beside A: of parallel rows only the tightest is in A.
    """
    d = R @ a
    limit = 8 * K.shape[0] + 16  # every row enters a few times and leaves as often; random problems need about 2|A|
    scale, unit = (1 + jnp.max(jnp.abs(jnp.where(allowed, v, 0))) for v in (d, R[:, 0]))
    program = _Program(K, a, d, allowed, 100 * float(jnp.finfo(K.dtype).eps) * scale, unit)
    no, count = like(d, False), like(d, 0)
    start = Pivots(jnp.zeros_like(d), like(d, False, d.shape), jnp.concatenate([K, R], axis=1), no, count, no)

    def unfinished(state: tuple[Pivots, Int[Array, ""]]) -> Bool[Array, ""]:
        return ~state[0].converged & (state[0].count < limit)

    return jax.lax.while_loop(unfinished, lambda state: program.pivot(*state), (start, count - 1))[0]


class Small(eqx.Module):
    """q = gᵀH⁻¹g, r = BH⁻¹g, S = BH⁻¹Bᵀ, c in the units above; w > 0: weights; `allowed`: b_j ≠ 0."""

    q: Float[Array, ""]
    r: Float[Array, " m"]
    S: Float[Array, "m m"]
    c: Float[Array, " m"]
    w: Float[Array, " m"]
    allowed: Bool[Array, " m"]


class Found(eqx.Module):
    """The rows A, the scalar (t or λ) at which the search ended, its pivots, and whether it came to an end."""

    rows: Bool[Array, " m"]
    scalar: Float[Array, ""]
    at_bound: Bool[Array, ""]
    pivots: Int[Array, ""]
    converged: Bool[Array, ""]


class _State(eqx.Module):
    """`low` < root < `high`, the point to evaluate next, and what the last evaluation found."""

    point: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    evaluations: Int[Array, ""]
    done: Bool[Array, ""]
    found: Found


def bind(p: Small) -> tuple[Found, Bool[Array, ""]]:
    """A of the solution, t = 1/λ; and whether the problem has no feasible point (A is then without meaning).

    t ≤ eps^-0.4: beyond, the region does not bind, and A is that of the linear program (`at_bound`).
    """
    R = jnp.stack([p.c, p.r], axis=1)
    eps = float(jnp.finfo(p.c.dtype).eps)

    def evaluate(t: Float[Array, ""]):
        pivots = positive_multipliers(p.S, R, jnp.stack([jnp.ones_like(t), -t]), p.allowed)
        k, rho = pivots.solved().T
        return pivots, p.q - p.r @ rho, p.c @ k

    shortest, _, C = evaluate(jnp.zeros_like(p.q))
    infeasible = shortest.empty | (C > 1)
    start = Found(shortest.rows, jnp.zeros_like(p.q), like(p.q, False), shortest.count, shortest.converged)

    def step(s: _State) -> _State:
        pivots, A, C = evaluate(s.point)
        size = s.point**2 * A + C
        root = jnp.sqrt(jnp.maximum(1 - C, 0) / jnp.maximum(A, eps**2))
        root = jnp.where(A > eps**2, root, jnp.where(C < 1, jnp.inf, 0))
        return _advance(s, size < 1, root, bound, pivots.rows, pivots.count, pivots.converged)

    bound = eps**-0.4
    done = infeasible | (p.q <= 0) | (C >= 1)  # with g = 0 the solution is the shortest feasible point
    return _search(step, jnp.ones_like(p.q), bound, done, start), infeasible


def soften(p: Small, infeasible: Bool[Array, ""], kappa: Float[Array, ""]) -> Found:
    """The rows V that stay violated, and λ, of   min ½Σ_j w_j (c_j + b_jᵀx)₊²   s.t. |x|² ≤ 1.

    Stationarity, Bᵀ W(c + Bx)₊ + λx = 0, says x = −H⁻¹B_Vᵀη with (S_VV + λW_V⁻¹)η = c_V, and λW⁻¹η are the
    violations. For given λ this η ≥ 0 solves the program of `positive_multipliers` with K = S + λW⁻¹, d = c;
    |x|² = ηᵀSη falls with λ. If it stays below 1 down to λ = √eps, the region does not bind (`at_bound`).

    c may be huge, so all is divided by κ ≥ 1:  K = S/κ + λW⁻¹, d = c/κ, with λ in units of κ.
    """
    # N = |x|² and its slope: N' = −2 ηᵀS K⁻¹W⁻¹η. The root of 1/√N, nearly linear in λ, is at λ + 2N(√N − 1)/|N'|.
    inverse_w, L = jnp.where(p.allowed, 1 / p.w, 1), factor(p.S)

    def step(s: _State) -> _State:
        low = jnp.maximum(1 / s.point, floor)
        K = p.S / kappa + low * jnp.diag(inverse_w)
        pivots = positive_multipliers(K, (p.c / kappa)[:, None], jnp.ones(1, K.dtype), p.allowed)
        eta, m = pivots.eta, K.shape[0]
        change = jnp.where(pivots.rows, -jnp.where(pivots.rows, pivots.table[:, :m], 0) @ (inverse_w * eta), 0)
        x = eta @ L
        N, slope = x @ x, 2 * x @ (change @ L)
        root = low + 2 * N * (jnp.sqrt(N) - 1) / jnp.where(slope > 0, slope, 1)
        # Far from the root it is wild, and near the floor N is all rounding: no leaps.
        point = jnp.where((slope > 0) & (root > 0), 1 / jnp.where(root > 0, root, 1), jnp.inf)
        point = jnp.minimum(point, 64 * s.point)
        return _advance(s, N < 1, point, bound, pivots.rows, pivots.count, pivots.converged)

    floor = float(jnp.finfo(p.c.dtype).eps) ** 0.5
    bound = 1 / floor
    # |x| = 1 at λ = |Bᵀ W(c + Bx)₊| ≤ Σ w_j (c_j + 1)₊.
    highest = jnp.sum(jnp.where(p.allowed, p.w * jnp.maximum(p.c / kappa + 1 / kappa, 0), 0))
    no, count = like(highest, False), like(highest, 0)
    nothing = Found(jnp.zeros_like(p.allowed), jnp.ones_like(highest), no, count, ~infeasible)
    # The search is for 1/λ, with which |x|² grows.
    found = _search(step, 1 / jnp.maximum(highest, floor), bound, ~infeasible, nothing)
    return eqx.tree_at(lambda f: f.scalar, found, 1 / found.scalar)


def _search(step, point, bound: float, done, found: Found) -> Found:
    """`step` until it is done, from `point` on, for the root in (0, bound]."""
    zero, high = jnp.zeros_like(point), jnp.full_like(point, bound)
    state = _State(point, zero, high, like(point, 0), done, found)
    return jax.lax.while_loop(lambda s: ~s.done & (s.evaluations < SEARCH_LIMIT), step, state).found


def _advance(s: _State, too_small, root, bound, rows, count, converged) -> _State:
    """Narrow the bracket by the size at `s.point`; then the `root` of its A if that lies inside, else bisect.

    Done when the root is the point itself, or the bound has been reached and the size is still too small.
    """
    accuracy = float(jnp.finfo(s.point.dtype).eps) ** 0.75  # `rows` ends where rounding begins
    at_bound = too_small & (s.point >= bound)
    done = at_bound | (jnp.abs(root - s.point) <= accuracy * s.point) | (s.high - s.low <= accuracy * s.high)
    low = jnp.where(too_small, s.point, s.low)
    high = jnp.where(too_small, s.high, s.point)
    # Every fourth point is a bisection, so that the bracket shrinks whatever the roots do.
    inside = (root > low) & (root < high) & (s.evaluations % 4 != 3)
    middle = jnp.sqrt(jnp.maximum(low, high / 256) * high)
    beyond = too_small & (root >= bound) & (s.high >= bound)
    point = jnp.where(beyond, bound, jnp.where(inside, root, middle))
    found = Found(rows, s.point, at_bound, s.found.pivots + count, done & converged)
    return _State(point, low, high, s.evaluations + 1, done, found)
