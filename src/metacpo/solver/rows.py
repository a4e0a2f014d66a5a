"""The step under m rows: closed form in the rows A that bind.

    minimise gᵀx   subject to   c + Bx ≤ 0  (multipliers ν),   ½ xᵀHx ≤ δ  (multiplier λ)

The Lagrangian is stationary at  x = −H⁻¹(g + Bᵀν)/λ.  With

    q = gᵀH⁻¹g,   r = BH⁻¹g,   S = BH⁻¹Bᵀ,   ρ = S_AA⁻¹r_A,   k = S_AA⁻¹c_A,
    d = H⁻¹(g − B_Aᵀρ),   p = H⁻¹B_Aᵀk,   A = q − r_Aᵀρ = dᵀHd,   B = 2δ − c_Aᵀk,

- B_Ax = −c_A gives (r_A + S_AA ν_A)/λ = c_A, so ν_A = λk − ρ and x = −d/λ − p, orthogonal in H, of squared
  lengths A/λ² and c_Aᵀk; A/λ² + c_Aᵀk = 2δ gives λ = √(A/B) and x = −√B·d/√A − p. No row: x = −√(2δ/q)·H⁻¹g.
- *infeasible*: min ½Σ_j w_j (c_j + b_jᵀx)₊²/S_jj over the region. Let V be the rows that stay violated, by
  v_V = c_V + B_V x; stationarity, Σ_V (w_j v_j/S_jj) b_j + λHx = 0, has ν_j = w_j v_j/S_jj, so that
  x = −√(2δ) H⁻¹B_Vᵀη with (S_VV + λW⁻¹)η = c_V/√(2δ), W_j = w_j/S_jj, ν = λ√(2δ)η; ηᵀSη = 1 gives λ.
  One row: η = 1/√s, x = −√(2δ/s)H⁻¹b, for every w and c.

A, V and a first λ come from `metacpo.solver.active_set` and are constant under differentiation. m = 1 gives the
formulas of `metacpo.solver.closed_form`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.solver.active_set import Found, Small, bind, soften
from metacpo.solver.bounded import bounded_quotient, bounded_sqrt
from metacpo.solver.dense import MaskedSystem
from metacpo.solver.error_bounds import Answer
from metacpo.solver.problem import Case


class Rows(eqx.Module):
    """g and B, Y = H⁻¹(g, B), HY, c, weights w, δ; rows and g scaled so that q = S_jj = 1 (0 where they vanish)."""

    g: Float[Array, " n"]
    B: Float[Array, "m n"]
    y: Float[Array, " n"]
    Y: Float[Array, "m n"]
    hy: Float[Array, " n"]
    HY: Float[Array, "m n"]
    c: Float[Array, " m"]
    w: Float[Array, " m"]
    delta: Float[Array, ""]


def solve_rows(
    rhs: Float[Array, "k n"],
    y: Float[Array, "k n"],
    hy: Float[Array, "k n"],
    c: Float[Array, " m"],
    delta: Float[Array, ""],
    weight: Float[Array, " m"],
    derivative_floor: float,
) -> tuple[Answer, Bool[Array, ""]]:
    """The step from rhs = (g, b_1, ..., b_m), y = H⁻¹rhs and Hy, any m ≥ 1; and whether H is positive along all."""
    square = jax.lax.stop_gradient(jnp.sum(rhs * y, axis=1))
    definite = jnp.all((square > 0) | jnp.all(rhs == 0, axis=1))
    size = jnp.sqrt(jnp.where(square > 0, square, 1))
    (g, B), (y_g, Y), (hy_g, HY) = ((v[0], v[1:]) for v in (a / size[:, None] for a in (rhs, y, hy)))
    heaviest = jax.lax.stop_gradient(jnp.max(weight))
    answer = _solve(Rows(g, B, y_g, Y, hy_g, HY, c / size[1:], weight / heaviest, delta), derivative_floor)
    # Back to the rows as they came: ν_j b_j and λHx keep their values, in units of g unless infeasible.
    scale = jnp.where(answer.case == Case.INFEASIBLE, heaviest, size[0])
    return eqx.tree_at(lambda a: (a.lam, a.nu), answer, (scale * answer.lam, scale / size[1:] * answer.nu)), definite


def _solve(p: Rows, derivative_floor: float) -> Answer:
    """Both closed forms, the feasible and the infeasible, of which one has an empty set of rows."""
    q, r, S = _dot(p.g, p.y), _dot(p.B, p.y), _dot(p.B, p.Y.T)
    allowed = jnp.diagonal(S) > 0
    small = jax.lax.stop_gradient(_small(p, q, r, S, allowed))
    hopeless = jnp.any(~allowed & (p.c > 0))  # b = 0, c > 0
    found, infeasible = bind(eqx.tree_at(lambda s: s.c, small, jnp.minimum(small.c, 2)))
    infeasible = infeasible | hopeless
    kappa = jnp.maximum(1, jnp.max(small.c))
    softened = soften(small, infeasible, kappa)
    rows = found.rows & ~infeasible

    x, hx, lam, nu, clipped, condition = _binding(p, q, r, S, rows, derivative_floor)
    x_soft, hx_soft, lam_soft, nu_soft, condition_soft = _softened(p, S, softened, kappa)
    case = jnp.select(
        [infeasible, jnp.any(rows) & jnp.any(p.c > 0), jnp.any(rows), jnp.any(allowed)],
        [Case.INFEASIBLE, Case.RECOVERING, Case.BINDING, Case.SLACK],
        Case.UNCONSTRAINED,
    )
    no_b = jnp.any(~allowed & (p.c >= 0))
    return Answer(
        x=jnp.where(infeasible, x_soft, x),
        hx=jnp.where(infeasible, hx_soft, hx),
        lam=jnp.where(infeasible, lam_soft, lam),
        nu=jnp.where(infeasible, nu_soft, nu),
        case=case.astype(jnp.int32),
        active=jnp.where(infeasible, softened.rows, rows),
        derivative_clipped=no_b | jnp.where(infeasible, softened.at_bound, clipped | (q <= 0)),
        condition=jnp.where(infeasible, condition_soft, condition),
        pivots=found.pivots + softened.pivots,
        converged=jnp.where(infeasible, softened.converged, found.converged),
    )


def _small(p: Rows, q, r, S, allowed) -> Small:
    """In units of the region. A row with c ≤ −2√(2δs) cannot bind inside it, and stands for all below."""
    c = jnp.where(allowed, p.c / jnp.sqrt(2 * p.delta), 0)
    return Small(q, r, (S + S.T) / 2, jnp.maximum(c, -2), p.w, allowed)


def _binding(p: Rows, q, r, S, rows, derivative_floor: float):
    """x = −√B·d/√A − p, Hx, λ = √(A/B), ν = λk − ρ ≥ 0, whether a root is clipped (see `bounded`), condition."""
    has_g = q > 0
    q, y = jnp.where(has_g, q, 1), jnp.where(has_g, p.y, 0)
    # Numbers that A does not use are replaced before they can overflow.
    r, c = jnp.where(rows, r, 0), jnp.where(rows, p.c, 0)
    system = MaskedSystem.of(S, rows)
    rho, k = system.solve(jnp.stack([r, c], axis=1)).T

    # A's value is dᵀHd, its derivative that of q − r_Aᵀρ: see `metacpo.solver.one`.
    d, hd = y - _dot(rho, p.Y), p.hy - _dot(rho, p.HY)
    A = q - _dot(r, rho)
    A = A + jax.lax.stop_gradient(_dot(d, hd) - A)
    B = 2 * p.delta - _dot(c, k)
    rounding = 100 * float(jnp.finfo(q.dtype).eps)
    A_floor, A_tiny = derivative_floor * q, rounding * q
    B_floor, B_tiny = derivative_floor * 2 * p.delta, rounding * 2 * p.delta

    # With n rows x is a corner, d = 0 whatever g is, and no slope is clipped.
    corner = jnp.sum(rows) >= p.g.shape[0]
    along = jnp.where(corner, 0, bounded_quotient(d, A, A_floor, A_tiny))
    hd_along = jnp.where(corner, 0, hd / jnp.sqrt(jnp.maximum(A, A_tiny)))
    x = -bounded_sqrt(B, B_floor) * along - _dot(k, p.Y)
    hx = -jnp.sqrt(jnp.maximum(B, 0)) * hd_along - _dot(k, p.HY)
    lam = jnp.where(has_g & ~corner, bounded_quotient(bounded_sqrt(A, A_floor), B, B_floor, B_tiny), 0)
    nu = jnp.where(rows, jnp.maximum(lam * k - rho, 0), 0)
    clipped = has_g & jnp.any(rows) & ~corner & ((A < A_floor) | (B < B_floor))
    steep = jnp.sqrt(q / jnp.maximum(A, A_floor)) + 2 * p.delta / jnp.maximum(B, B_floor)
    condition = jnp.where(jnp.any(rows), system.condition * jnp.where(corner, 1, steep), 1)
    return x, jax.lax.stop_gradient(hx), lam, nu, clipped, condition


def _softened(p: Rows, S, found: Found, kappa):
    """x = −√(2δ)H⁻¹B_Vᵀη, Hx, λ, ν and condition of the infeasible problem; c/κ and λ/κ in place of c and λ."""
    rows, radius = found.rows, jnp.sqrt(2 * p.delta)
    c = jnp.where(rows, p.c / kappa, 0) / radius
    inverse_w = jnp.where(rows, jnp.diagonal(S) / p.w, 0)

    def system(lam: Float[Array, ""]) -> MaskedSystem:
        return MaskedSystem.of(S / kappa + lam * jnp.diag(inverse_w), rows)

    def eta(lam: Float[Array, ""]) -> Float[Array, " m"]:
        return system(lam).solve(c[:, None])[:, 0]

    # λ is a root of N(λ) = ηᵀSη = 1, unless the region does not bind or no row is violated.
    moves = jnp.any(rows) & ~found.at_bound

    def excess(lam: Float[Array, ""]) -> Float[Array, ""]:
        # The same number as ηᵀSη, which loses its digits where S_VV is singular and λ small.
        e = eta(lam)
        N = _dot(_dot(e, p.B), _dot(e, p.Y))
        return jnp.where(moves, N - 1, lam - found.scalar)

    lam = jax.lax.custom_root(excess, found.scalar, _newton_step, lambda slope, y: y / slope(jnp.ones_like(y)))
    e = eta(lam)
    # Where the region does not bind λ should be 0 and is √eps. Starting again from x instead of 0, K dη = c − Sη =
    # λW⁻¹η, squares the error of x.
    again = system(lam).solve((lam * inverse_w * e)[:, None])[:, 0]
    to_x = e + jnp.where(found.at_bound, again, 0)
    x, hx = -radius * _dot(to_x, p.Y), -radius * _dot(to_x, p.HY)
    nu = kappa * lam * radius * e
    return x, jax.lax.stop_gradient(hx), jnp.where(found.at_bound, 0, kappa * lam), nu, system(lam).condition


def _newton_step(excess, lam: Float[Array, ""]) -> Float[Array, ""]:
    """From the search's λ, eps^¾ close, to the root of the formula that is differentiated."""
    value, slope = jax.jvp(excess, (lam,), (jnp.ones_like(lam),))
    return jnp.where(slope != 0, lam - value / jnp.where(slope != 0, slope, 1), lam)


def _dot(u: Array, v: Array) -> Array:
    """Product without the reduced precision that accelerators use by default."""
    return jnp.dot(u, v, precision=jax.lax.Precision.HIGHEST)
