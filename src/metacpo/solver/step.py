"""The constrained trust-region step: g, b, c, H, δ in, x out, differentiable."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.bounded import bounded_quotient, bounded_sqrt
from metacpo.solver.dual import Dual, Scalars, binds, classify, dual
from metacpo.solver.metric import CGSettings, inverse_times, relative_residual
from metacpo.solver.problem import Case, Problem, Solution


def solve(problem: Problem, *, cg: CGSettings | None = None, edge: float = 1e-3) -> Solution:
    """Solve  min gᵀx  s.t.  c_j + b_jᵀx ≤ 0,  ½ xᵀHx ≤ δ  for m ≤ 1; shapes, units and signs in `Problem`.

    - BINDING, RECOVERING: x = −√(B/A) H⁻¹(g − (r/s)b) − (c/s) H⁻¹b   (letters in `metacpo.solver.dual`)
    - SLACK, UNCONSTRAINED: x = −√(2δ/q) H⁻¹g
    - INFEASIBLE: x = −√(2δ/s) H⁻¹b, and 0 where b = 0
    - INVALID: x = 0

    Where g = 0, or g ∥ b with a binding constraint, many x are optimal and x is the shortest in H:
    0 if the constraint allows it, else −(c/s)H⁻¹b.

    ½ xᵀHx ≤ δ holds to rounding even if `cg` (default `CGSettings()`) stops early: an x that is too long is
    shortened.

    The derivative in g, b, c, δ and whatever H closes over is that of the solution map within its case
    (implicit through H⁻¹, so that `cg` sets its accuracy too), in both modes; `case` and `residual` are
    constant. It is exact but for these exceptions, reported by `Solution.edge`, and finite everywhere:

    - a constraint binds with B < edge·2δ (the feasible set shrinks to a point) or A < edge·q (g almost
      parallel to b): the unbounded slope of the root is replaced by the one at edge·2δ or edge·q;
    - g = 0, or b = 0 with c ≥ 0: derivatives in that zero vector are 0.

    Raises ValueError for a shape that does not fit, and for m > 1.
    """
    _check_shapes(problem, edge)
    g, b, c, delta, finite = _finite_inputs(problem)

    # x does not change when g, or b and c, are scaled. Scaled to size 1 nothing under- or overflows below;
    # as constants the two scales leave every derivative exact.
    g_scale, b_scale = _scale(g), _scale(b)
    g, b, c = g / g_scale, b / b_scale, c / b_scale

    rhs = jnp.stack([g, b])
    y, hy = inverse_times(problem.metric, rhs, cg if cg is not None else CGSettings())
    finite = finite & jnp.all(jnp.isfinite(hy))
    y, hy = jnp.where(finite, y, 0), jnp.where(finite, hy, 0)
    (y_g, y_b), (hy_g, hy_b) = y, hy

    p = _scalars(rhs, y, hy, c, delta)
    definite = ((p.q > 0) | jnp.all(g == 0)) & ((p.s > 0) | jnp.all(b == 0))
    case = classify(jax.lax.stop_gradient(p))
    d = dual(p, case, edge)
    x = _primal(y_g, y_b, p, d, case)
    # (Hy_g, Hy_b) in place of (y_g, y_b) gives Hx.
    x = x * _shortening(x, _primal(hy_g, hy_b, p, d, case), delta)

    lam = jnp.where(case == Case.INFEASIBLE, b_scale, g_scale) * d.lam
    nu = jnp.where(binds(case), g_scale / b_scale, 1) * d.nu
    valid = finite & definite & jnp.all(jnp.isfinite(x)) & jnp.isfinite(lam) & jnp.isfinite(nu)
    no_g = (p.q <= 0) & (case != Case.INFEASIBLE)
    no_b = (p.s <= 0) & (c >= 0)
    return Solution(
        step=jnp.where(valid, x, 0),
        lam=jnp.where(valid, lam, 0),
        nu=jnp.where(valid, nu, 0)[None][: problem.c.shape[0]],
        case=jnp.where(valid, case, jnp.int32(Case.INVALID)),
        residual=jnp.where(valid, relative_residual(rhs, hy), 1),
        edge=valid & (d.clipped | no_g | no_b),
    )


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


def _shortening(x: Float[Array, " n"], hx: Float[Array, " n"], delta: Float[Array, ""]) -> Float[Array, ""]:
    """The factor t ≤ 1 with ½ (tx)ᵀH(tx) ≤ δ; 1 but for inexact solves. Constant under differentiation."""
    size = _dot(x, hx)
    t = jnp.where(size > 2 * delta, jnp.sqrt(2 * delta / jnp.where(size > 0, size, 1)), 1)
    return jax.lax.stop_gradient(t)


def _scale(v: Float[Array, " n"]) -> Float[Array, ""]:
    """max_i |v_i|, or 1 for v = 0; constant under differentiation."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(v)))
    return jnp.where(size > jnp.finfo(v.dtype).tiny, size, 1)


def _dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    """uᵀv without the reduced precision that accelerators use by default: A and B subtract such numbers."""
    return jnp.dot(u, v, precision=jax.lax.Precision.HIGHEST)


class _Inputs(NamedTuple):
    g: Float[Array, " n"]
    b: Float[Array, " n"]
    c: Float[Array, ""]
    delta: Float[Array, ""]
    finite: Bool[Array, ""]


def _finite_inputs(problem: Problem) -> _Inputs:
    """The inputs, or g = 0, b = 0, c = −1, δ = 1 if any is not finite or δ ≤ 0, so that nothing NaN flows on.

    m = 0 is the constraint that asks nothing: b = 0, c = −1.
    """
    g = problem.g
    delta = jnp.asarray(problem.delta, g.dtype)
    if problem.c.shape[0] == 1:
        b, c = problem.b[0], problem.c[0]
    else:
        b, c = jnp.zeros_like(g), -jnp.ones_like(delta)
    finite = jnp.all(jnp.isfinite(g)) & jnp.all(jnp.isfinite(b)) & jnp.isfinite(c)
    finite = finite & jnp.isfinite(delta) & (delta > 0)
    return _Inputs(
        g=jnp.where(finite, g, 0),
        b=jnp.where(finite, b, 0),
        c=jnp.where(finite, c, -1),
        delta=jnp.where(finite, delta, 1),
        finite=finite,
    )


def _check_shapes(problem: Problem, edge: float) -> None:
    """ValueError, naming the argument, for shapes that do not fit each other."""
    g, b, c, metric = problem.g, problem.b, problem.c, problem.metric
    if g.ndim != 1 or g.shape[0] == 0:
        raise ValueError(f"g must have shape [n] with n ≥ 1, got {g.shape}")
    n = g.shape[0]
    if b.ndim != 2 or b.shape[1] != n:
        raise ValueError(f"b must have shape [m, {n}] to fit g of shape {g.shape}, got {b.shape}")
    if c.shape != b.shape[:1]:
        raise ValueError(f"c must have shape {b.shape[:1]} to fit b of shape {b.shape}, got {c.shape}")
    if b.shape[0] > 1:
        raise ValueError(f"b must have at most one row (m ≤ 1), got shape {b.shape}")
    if jnp.shape(problem.delta) != ():
        raise ValueError(f"delta must be a scalar, got shape {jnp.shape(problem.delta)}")
    if metric is not None and (metric.in_size(), metric.out_size()) != (n, n):
        raise ValueError(
            f"metric must map [{n}] to [{n}] to fit g of shape {g.shape}, "
            f"got [{metric.in_size()}] to [{metric.out_size()}]"
        )
    if not 0 < edge < 1:
        raise ValueError(f"edge must lie in (0, 1), got {edge}")
