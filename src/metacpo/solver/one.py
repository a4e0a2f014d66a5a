"""The step under one row, in closed form: the letters and cases of `metacpo.solver.closed_form`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.bounded import bounded_quotient, bounded_sqrt
from metacpo.solver.closed_form import Dual, Scalars, binds, classify, dual
from metacpo.solver.error_bounds import Answer
from metacpo.solver.problem import Case


def solve_one(
    rhs: Float[Array, "2 n"],
    y: Float[Array, "2 n"],
    hy: Float[Array, "2 n"],
    c: Float[Array, ""],
    delta: Float[Array, ""],
    derivative_floor: float,
) -> tuple[Answer, Bool[Array, ""]]:
    """The step from rhs = (g, b), y = H⁻¹(g, b) and Hy; and whether H is positive along both.

    - BINDING, RECOVERING: x = −√(B/A) H⁻¹(g − (r/s)b) − (c/s) H⁻¹b
    - SLACK, UNCONSTRAINED: x = −√(2δ/q) H⁻¹g
    - INFEASIBLE: x = −√(2δ/s) H⁻¹b, and 0 where b = 0
    """
    (g, b), (y_g, y_b), (hy_g, hy_b) = rhs, y, hy
    p = _scalars(rhs, y, hy, c, delta)
    definite = ((p.q > 0) | jnp.all(g == 0)) & ((p.s > 0) | jnp.all(b == 0))
    case = classify(jax.lax.stop_gradient(p))
    d = dual(p, case, derivative_floor)
    no_g = (p.q <= 0) & (case != Case.INFEASIBLE)
    no_b = (p.s <= 0) & (c >= 0)
    answer = Answer(
        x=_primal(y_g, y_b, p, d, case),
        # (Hy_g, Hy_b) in place of (y_g, y_b) gives Hx.
        hx=jax.lax.stop_gradient(_primal(hy_g, hy_b, p, d, case)),
        lam=d.lam,
        nu=d.nu[None],
        case=case,
        active=(binds(case) | ((case == Case.INFEASIBLE) & (p.s > 0)))[None],
        derivative_clipped=d.clipped | no_g | no_b,
        condition=jnp.where(
            binds(case), jnp.sqrt(p.q / jnp.maximum(d.A, d.A_floor)) + 2 * delta / jnp.maximum(d.B, d.B_floor), 1
        ),
        pivots=jnp.int32(0),
        converged=jnp.asarray(True),
    )
    return answer, definite


def _primal(
    y_g: Float[Array, " n"], y_b: Float[Array, " n"], p: Scalars, d: Dual, case: Int[Array, ""]
) -> Float[Array, " n"]:
    """x from y_g = H⁻¹g and y_b = H⁻¹b; each branch is finite also where another is selected."""
    binding = binds(case)
    q, s = jnp.where(p.q > 0, p.q, 1), jnp.where(p.s > 0, p.s, 1)
    y_g, y_b = jnp.where(p.q > 0, y_g, 0), jnp.where(p.s > 0, y_b, 0)
    r, c = jnp.where(binding, p.r, 0), jnp.where(binding, p.c, 0)

    # x = −√B · H⁻¹(g − (r/s)b)/√A − (c/s) H⁻¹b
    along = bounded_quotient(y_g - (r / s) * y_b, d.A, d.A_floor, d.A_tiny)
    x_binding = -bounded_sqrt(d.B, d.B_floor) * along - (c / s) * y_b
    # x = −√(2δ/q) H⁻¹g
    x_slack = -jnp.sqrt(2 * p.delta / q) * y_g
    # x = −√(2δ/s) H⁻¹b
    x_recovery = -jnp.sqrt(2 * p.delta / s) * y_b
    return jnp.where(binding, x_binding, jnp.where(case == Case.INFEASIBLE, x_recovery, x_slack))


def _scalars(
    rhs: Float[Array, "2 n"],
    y: Float[Array, "2 n"],
    hy: Float[Array, "2 n"],
    c: Float[Array, ""],
    delta: Float[Array, ""],
) -> Scalars:
    """q, r, s, A from rhs = (g, b), y = H⁻¹(g, b) and Hy, chosen so that an inexact y does little harm.

    r = bᵀy_g and not gᵀy_b: then c + bᵀx = 0 also for a y_g that is only near H⁻¹g.

    A = q − r²/s = dᵀHd with d = y_g − (r/s)y_b: the value of the second form, the derivative of the first.
    They agree for exact y. For a y that stopped early the first can be near 0, or below it, although d is
    long, and a step along d/√A would be longer than the region by orders of magnitude.
    """
    (g, b), (y_g, y_b), (hy_g, hy_b) = rhs, y, hy
    q, r, s = _dot(g, y_g), _dot(b, y_g), _dot(b, y_b)
    ratio = r / jnp.where(s > 0, s, 1)
    d, hd = y_g - ratio * y_b, hy_g - ratio * hy_b
    A = q - ratio * r
    return Scalars(q, r, s, c, delta, A + jax.lax.stop_gradient(_dot(d, hd) - A))


def _dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    """uᵀv without the reduced precision that accelerators use by default: A and B subtract such numbers."""
    return jnp.dot(u, v, precision=jax.lax.Precision.HIGHEST)
