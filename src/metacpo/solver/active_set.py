"""Which rows bind, when m rows compete: the search that the closed forms of `metacpo.solver.rows` start from.

Everything here is in the units of the small problem: rows, g and region of size 1 in H⁻¹ (S_jj = q = 2δ = 1; q = 0
if g = 0). Nothing is differentiated. With t = 1/λ and μ = ν/λ, the solution is

    x(t) = −H⁻¹(tg + Bᵀμ),   the point of {c + Bx ≤ 0} nearest to −tH⁻¹g,   and t is the one with |x(t)|² = 1.

For given t the multipliers μ solve the program of `metacpo.solver.pivots` with K = S, d = c − tr; |x(t)| grows
with t, from the shortest feasible point at t = 0 on. As long as A stays the same,

    |x(t)|² = t²(q − r_Aᵀ S_AA⁻¹ r_A) + c_Aᵀ S_AA⁻¹ c_A

whose root t is exact once its A is the A of the solution. The infeasible problem has t = 0 and instead a λ
that softens every row (`soften`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.dense import factor, like
from metacpo.solver.pivots import positive_multipliers

SEARCH_LIMIT = 60  # evaluations of |x|² in each search; random problems need about 4, bisection alone about 50


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
    # With g = 0 the solution is the shortest feasible point.
    done = infeasible | (p.q <= 0) | (C >= 1)
    return _search(step, jnp.ones_like(p.q), bound, done, start), infeasible


def soften(p: Small, infeasible: Bool[Array, ""], kappa: Float[Array, ""]) -> Found:
    """The rows V that stay violated, and λ, of   min ½Σ_j w_j (c_j + b_jᵀx)₊²   s.t. |x|² ≤ 1.

    Stationarity, Bᵀ W(c + Bx)₊ + λx = 0, says x = −H⁻¹B_Vᵀη with (S_VV + λW_V⁻¹)η = c_V, and λW⁻¹η are the
    violations. For given λ this η ≥ 0 solves the program of `metacpo.solver.pivots` with K = S + λW⁻¹, d = c;
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
    none, count = jnp.zeros_like(p.allowed), like(highest, 0)
    nothing = Found(none, jnp.ones_like(highest), like(highest, False), count, ~infeasible)
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
