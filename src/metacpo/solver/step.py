"""The constrained trust-region step: g, b, c, H, δ in, x out, differentiable."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from metacpo.solver.adjoint import Adjoint, FirstOrder, Implicit
from metacpo.solver.arguments import operator
from metacpo.solver.cg import CGSettings, Solved, inverse_times, relative_residual
from metacpo.solver.error_bounds import Answer, error_bound, gradient_error
from metacpo.solver.inputs import check_shapes, check_values, finite_inputs
from metacpo.solver.one import solve_one
from metacpo.solver.problem import Case, Problem, Solution, Stats
from metacpo.solver.rows import solve_rows


def solve(
    problem: Problem,
    *,
    cg: CGSettings | None = None,
    derivative_floor: float = 1e-3,
    adjoint: Adjoint | None = None,
    preconditioner: lx.AbstractLinearOperator | Float[Array, "n n"] | None = None,
    solved: Solved | None = None,
) -> Solution:
    """Solve  min gᵀx  s.t.  c_j + b_jᵀx ≤ 0,  ½ xᵀHx ≤ δ  (j = 1..m); shapes, units and signs in `Problem`.

    Letters in `metacpo.solver.rows` (m ≥ 2) and `metacpo.solver.closed_form` (m ≤ 1):

    - BINDING, RECOVERING: x = −√(B/A) H⁻¹(g − B_Aᵀρ) − H⁻¹B_Aᵀk
    - SLACK, UNCONSTRAINED: x = −√(2δ/q) H⁻¹g
    - INFEASIBLE: x minimises ½Σ_j weight_j (c_j + b_jᵀx)₊²/s_j over the region: −√(2δ/s) H⁻¹b for m = 1
    - INVALID: x = 0; also where conjugate gradients meet a direction p with pᵀHp ≤ 0, for which H is no metric

    Where many x are optimal x is the shortest in H: g = 0, g in the span of binding constraints, or b_j = 0 with
    c_j > 0 (INFEASIBLE whatever x is; x minimises the violation of the others).

    ½ xᵀHx ≤ δ holds to rounding even if `cg` (default `CGSettings()`) stops early: an x that is too long is
    shortened. `preconditioner` ≈ H⁻¹, positive definite, makes `cg` need fewer iterations if it is a good one.
    `solved`: H⁻¹ of the rows (g, b_1, ..., b_m), where they are known already; nothing is solved then.

    The derivative in g, b, c, δ, weight and whatever H closes over is that of the solution map within its case
    and active set, in both modes and to every order. `adjoint` (default `Implicit()`) says how it goes through
    H⁻¹; `case`, `active`, `residual` and `stats` are constant. It is exact but for these exceptions, reported by
    `Solution.derivative_clipped`, and finite everywhere:

    - constraints bind with B < f·2δ (the feasible set shrinks to a point) or A < f·q (g almost in their span), f the
      `derivative_floor`: the unbounded slope of the root is replaced by the one at f·2δ or f·q;
    - g = 0, or b_j = 0 with c_j ≥ 0: derivatives in that zero vector are 0;
    - INFEASIBLE and m ≥ 2, but the region does not bind (constraints that contradict each other): x is the
      shortest minimiser to within √eps.

    Raises ValueError for a shape that does not fit and, where numbers are known (outside of jit, vmap and grad),
    for a g, b or c that is not finite, δ ≤ 0 or a weight ≤ 0.
    """
    preconditioner = operator("preconditioner")(preconditioner)
    check_shapes(problem, derivative_floor, preconditioner)
    check_values(problem)
    adjoint = Implicit() if adjoint is None else adjoint
    cg = CGSettings() if cg is None else cg
    g, b, c, delta, weight, finite = finite_inputs(problem)

    # x does not change when g, or b_j and c_j, are scaled. Scaled to size 1 nothing under- or overflows below;
    # as constants the scales leave every derivative exact.
    g_scale, b_scale = _scale(g), jax.vmap(_scale)(b)
    g, b, c = g / g_scale, b / b_scale[:, None], c / b_scale
    rhs = jnp.concatenate([g[None], b])
    if solved is None:
        y, hy, iterations, positive = inverse_times(problem.metric, rhs, cg, adjoint, preconditioner)
    else:
        y, hy, iterations, positive = _scaled(solved, jnp.append(g_scale, b_scale))
    finite = finite & jnp.all(jnp.isfinite(hy)) & jnp.all(positive)
    y, hy = jnp.where(finite, y, 0), jnp.where(finite, hy, 0)

    if b.shape[0] == 1:
        answer, definite = solve_one(rhs, y, hy, c[0], delta, derivative_floor)
    else:
        answer, definite = solve_rows(rhs, y, hy, c, delta, weight, derivative_floor)
    t = _shortening(answer.x, answer.hx, delta)
    floor = 1.0 if problem.metric is None else cg.smallest_eigenvalue
    error = error_bound(rhs, jnp.sum(rhs * y, axis=1)[1:], c, delta, weight, answer, t, floor)
    derivatives = gradient_error(rhs, y, hy, answer.condition, floor)
    stats = Stats(relative_residual(rhs, hy), iterations, error, derivatives, answer.pivots, answer.converged)

    x = answer.x * t
    lam, nu = _unscaled(answer, g_scale, b_scale)
    valid = finite & definite & jnp.all(jnp.isfinite(x)) & jnp.isfinite(lam) & jnp.all(jnp.isfinite(nu))
    solution = _solution(x, lam, nu, answer, stats, valid, problem.c.shape[0])
    return jax.lax.stop_gradient(solution) if isinstance(adjoint, FirstOrder) else solution


def _scaled(solved: Solved, scale: Float[Array, " k"]) -> tuple[Array, Array, Array, Array]:
    """y, Hy, iterations and `definite` of the rows divided by `scale`; the row that stands for m = 0 is zero."""
    missing = scale.shape[0] - solved.y.shape[0]
    y, hy = (jnp.pad(a, ((0, missing), (0, 0))) / scale[:, None] for a in (solved.y, solved.hy))
    return y, hy, jnp.pad(solved.iterations, (0, missing)), solved.definite


def _solution(
    x: Float[Array, " n"],
    lam: Float[Array, ""],
    nu: Float[Array, " k"],
    answer: Answer,
    stats: Stats,
    valid: Bool[Array, ""],
    m: int,
) -> Solution:
    """Zeros and INVALID unless `valid`; of k rows the m that the problem has."""
    return Solution(
        step=jnp.where(valid, x, 0),
        lam=jnp.where(valid, lam, 0),
        nu=jnp.where(valid, nu, 0)[:m],
        case=jnp.where(valid, answer.case, jnp.int32(Case.INVALID)),
        residual=jnp.where(valid, jnp.max(stats.residuals), 1),
        derivative_clipped=valid & answer.derivative_clipped,
        active=(valid & answer.active)[:m],
        stats=Stats(
            residuals=jnp.where(valid, stats.residuals, 1)[: m + 1],
            iterations=stats.iterations[: m + 1],
            error=jnp.where(valid, stats.error, jnp.inf),
            gradient_error=jnp.where(valid, stats.gradient_error, jnp.inf),
            pivots=stats.pivots,
            converged=valid & stats.converged,
        ),
    )


def _unscaled(
    answer: Answer, g_scale: Float[Array, ""], b_scale: Float[Array, " m"]
) -> tuple[Float[Array, ""], Float[Array, " m"]]:
    """λ and ν of the problem as it was given. An infeasible problem's objective contains no g.

    One row: min bᵀx has ν = 1 in its own units. More: the objective is in the units of δ, like (c + bᵀx)²/s.
    """
    infeasible = answer.case == Case.INFEASIBLE
    if b_scale.shape[0] == 1:
        lam = jnp.where(infeasible, b_scale[0], g_scale) * answer.lam
        nu = jnp.where(answer.active & ~infeasible, g_scale / b_scale, 1) * answer.nu
        return lam, nu
    scale = jnp.where(infeasible, 1, g_scale)
    return scale * answer.lam, scale / b_scale * answer.nu


def _shortening(x: Float[Array, " n"], hx: Float[Array, " n"], delta: Float[Array, ""]) -> Float[Array, ""]:
    """The factor t ≤ 1 with ½ (tx)ᵀH(tx) ≤ δ; 1 but for inexact solves. Constant under differentiation."""
    size = jnp.dot(x, hx, precision=jax.lax.Precision.HIGHEST)
    t = jnp.where(size > 2 * delta, jnp.sqrt(2 * delta / jnp.where(size > 0, size, 1)), 1)
    return jax.lax.stop_gradient(t)


def _scale(v: Float[Array, " n"]) -> Float[Array, ""]:
    """max_i |v_i|, or 1 for v = 0; constant under differentiation."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(v)))
    return jnp.where(size > jnp.finfo(v.dtype).tiny, size, 1)
