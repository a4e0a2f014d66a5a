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
formulas of `metacpo.solver.closed_form`. `nearest_feasible` needs S and c alone.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.solver.active_set import Found, Small, bind, positive_multipliers, soften
from metacpo.solver.closed_form import Roots, cancelled
from metacpo.solver.dense import MaskedSystem, dot
from metacpo.solver.problem import Answer, Case


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
    q, r, S = dot(p.g, p.y), dot(p.B, p.y), dot(p.B, p.Y.T)
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
        unit=jnp.ones_like(lam),
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
    """x = −√B·d/√A − p, Hx, λ = √(A/B), ν = λk − ρ ≥ 0, whether a root is clipped (see `Roots`), condition."""
    has_g = q > 0
    q, y = jnp.where(has_g, q, 1), jnp.where(has_g, p.y, 0)
    # Numbers that A does not use are replaced before they can overflow.
    r, c = jnp.where(rows, r, 0), jnp.where(rows, p.c, 0)
    system = MaskedSystem.of(S, rows)
    rho, k = system.solve(jnp.stack([r, c], axis=1)).T

    d, hd = y - dot(rho, p.Y), p.hy - dot(rho, p.HY)
    A, B = cancelled(q - dot(r, rho), d, hd), 2 * p.delta - dot(c, k)
    roots = Roots.of(A, B, q, p.delta, derivative_floor)

    # With n rows x is a corner, d = 0 whatever g is, and no slope is clipped.
    corner = jnp.sum(rows) >= p.g.shape[0]
    x = -jnp.where(corner, 0, roots.scaled(d)) - dot(k, p.Y)
    hx = -jnp.where(corner, 0, roots.scaled(hd)) - dot(k, p.HY)
    lam = jnp.where(has_g & ~corner, roots.ratio, 0)
    nu = jnp.where(rows, jnp.maximum(lam * k - rho, 0), 0)
    clipped = has_g & jnp.any(rows) & ~corner & roots.clipped
    steep = jnp.where(corner, 1, roots.condition(q, p.delta))
    condition = jnp.where(jnp.any(rows), system.condition * steep, 1)
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
        N = dot(dot(e, p.B), dot(e, p.Y))
        return jnp.where(moves, N - 1, lam - found.scalar)

    lam = jax.lax.custom_root(excess, found.scalar, _newton_step, lambda slope, y: y / slope(jnp.ones_like(y)))
    e = eta(lam)
    # Where the region does not bind λ should be 0 and is √eps. Starting again from x instead of 0, K dη = c − Sη =
    # λW⁻¹η, squares the error of x.
    again = system(lam).solve((lam * inverse_w * e)[:, None])[:, 0]
    to_x = e + jnp.where(found.at_bound, again, 0)
    x, hx = -radius * dot(to_x, p.Y), -radius * dot(to_x, p.HY)
    nu = kappa * lam * radius * e
    return x, jax.lax.stop_gradient(hx), jnp.where(found.at_bound, 0, kappa * lam), nu, system(lam).condition


def _newton_step(excess, lam: Float[Array, ""]) -> Float[Array, ""]:
    """From the search's λ, eps^¾ close, to the root of the formula that is differentiated."""
    value, slope = jax.jvp(excess, (lam,), (jnp.ones_like(lam),))
    return jnp.where(slope != 0, lam - value / jnp.where(slope != 0, slope, 1), lam)


def nearest_feasible(S: Float[Array, "m m"], c: Float[Array, " m"]) -> Float[Array, ""]:
    """min ½xᵀHx over all x with c + Bx ≤ 0, from S = BH⁻¹Bᵀ; ∞ where no x meets every row.

    The minimiser is x = −H⁻¹Bᵀμ with μ ≥ 0, positive only in rows A that bind there, S_AA μ_A = c_A. Hence

        ½xᵀHx = ½ μᵀSμ = ½ c_Aᵀ S_AA⁻¹ c_A;        one row: max(0, c)²/2s.

    Rows with b_j = 0 take no part: no x changes them. A is constant under differentiation, where it is exact but for
    the kinks at which A changes.
    """
    m = c.shape[0]
    if m == 0:
        return jnp.zeros((), S.dtype)
    s = jnp.diagonal(jax.lax.stop_gradient(S))
    allowed = s > 0
    size = jnp.sqrt(jnp.where(allowed, s, 1))
    K, d = S / (size * size[:, None]), jnp.where(allowed, c / size, 0)
    if m == 1:
        return 0.5 * jnp.where(allowed[0], jnp.maximum(d[0], 0) ** 2 / jnp.where(allowed[0], K[0, 0], 1), 0)
    fixed, goal = jax.lax.stop_gradient(((K + K.T) / 2, d))
    # In units of the largest violation, so that the tolerances of the search are relative to it.
    unit = jnp.maximum(jnp.max(goal), jnp.finfo(S.dtype).tiny)
    found = positive_multipliers(fixed, (goal / unit)[:, None], jnp.ones(1, S.dtype), allowed)
    mu = MaskedSystem.of(K, found.rows).solve(d[:, None])[:, 0]
    return jnp.where(found.empty, jnp.inf, 0.5 * jnp.sum(jnp.where(found.rows, d, 0) * mu))
