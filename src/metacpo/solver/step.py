"""The constrained trust-region step: g, b, c, H, δ in, x out, differentiable.

Letters in `metacpo.solver.rows` (m ≥ 2) and `metacpo.solver.closed_form` (m ≤ 1):

- BINDING, RECOVERING: x = −√(B/A) H⁻¹(g − B_Aᵀρ) − H⁻¹B_Aᵀk
- SLACK, UNCONSTRAINED: x = −√(2δ/q) H⁻¹g
- INFEASIBLE: x minimises ½Σ_j weight_j (c_j + b_jᵀx)₊²/s_j over the region: −√(2δ/s) H⁻¹b for m = 1
- INVALID: x = 0; also where conjugate gradients meet a direction p with pᵀHp ≤ 0, for which H is no metric

Where many x are optimal x is the shortest in H: g = 0, g in the span of binding constraints, or b_j = 0 with
c_j > 0 (INFEASIBLE whatever x is; x minimises the violation of the others).

The derivative is that of the solution map within its case and active set, exact but for these exceptions, which
`Solution.derivative_clipped` reports, and finite everywhere:

- constraints bind with B < f·2δ (the feasible set shrinks to a point) or A < f·q (g almost in their span), f the
  `derivative_floor`: the unbounded slope of the root is replaced by the one at f·2δ or f·q;
- g = 0, or b_j = 0 with c_j ≥ 0: derivatives in that zero vector are 0;
- INFEASIBLE and m ≥ 2, but the region does not bind (constraints that contradict each other): x is the
  shortest minimiser to within √eps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.solver.cg import CGSettings, Solved, inverse_times, relative_residual, row_sizes
from metacpo.solver.closed_form import solve_one
from metacpo.solver.dense import dot
from metacpo.solver.error_bounds import error_bound, gradient_error
from metacpo.solver.inputs import check_shapes, check_values, finite_inputs
from metacpo.solver.problem import Answer, Case, Problem, Solution, Stats
from metacpo.solver.rows import solve_rows


def solve(
    problem: Problem,
    *,
    cg: CGSettings | None = None,
    derivative_floor: float = 1e-3,
    solved: Solved | None = None,
) -> Solution:
    """Solve  min gᵀx  s.t.  c_j + b_jᵀx ≤ 0,  ½ xᵀHx ≤ δ  (j = 1..m); shapes, units and signs in `Problem`.

    ½ xᵀHx ≤ δ holds to rounding even if `cg` (default `CGSettings()`) stops early: an x that is too long is
    shortened. `solved`: H⁻¹ of the rows (g, b_1, ..., b_m), where they are known already; nothing is solved then.

    The derivative in g, b, c, δ, weight and whatever H closes over is described at the head of this module; both modes,
    every order; through H⁻¹ it is implicit (`cg.implicit`), or that of `solved`. `case`, `active`, `residual` and
    `stats` are constant.

    Raises ValueError for a shape that does not fit and, where numbers are known (outside of jit, vmap and grad),
    for a g, b or c that is not finite, δ ≤ 0 or a weight ≤ 0.
    """
    if not 0 < derivative_floor < 1:
        raise ValueError(f"derivative_floor must lie in (0, 1), got {derivative_floor}")
    numbers = problem.g, problem.b, problem.c, problem.delta, problem.weight
    check_shapes(*numbers, problem.metric)
    check_values(*numbers)
    cg = CGSettings() if cg is None else cg
    g, b, c, delta, weight, finite = finite_inputs(*numbers)

    # x does not change when g, or b_j and c_j, are scaled. Scaled to size 1 nothing under- or overflows below;
    # as constants the scales leave every derivative exact.
    rows = jnp.concatenate([g[None], b])
    scale = row_sizes(rows)
    rows, c = rows / scale[:, None], c / scale[1:]
    if solved is None:
        y, hy, iterations, positive = inverse_times(problem.metric, rows, cg)
    else:
        y, hy, iterations, positive = _scaled(solved, scale)
    finite = finite & jnp.all(jnp.isfinite(hy)) & jnp.all(positive)
    y, hy = jnp.where(finite, y, 0), jnp.where(finite, hy, 0)

    if b.shape[0] == 1:
        answer, definite = solve_one(rows, y, hy, c[0], delta, weight[0], derivative_floor)
    else:
        answer, definite = solve_rows(rows, y, hy, c, delta, weight, derivative_floor)
    t = _shortening(answer.x, answer.hx, delta)
    floor = 1.0 if problem.metric is None else cg.smallest_eigenvalue
    error = error_bound(rows, jnp.sum(rows * y, axis=1)[1:], c, delta, weight, answer, t, floor)
    derivatives = gradient_error(rows, y, hy, answer.condition, floor)
    stats = Stats(relative_residual(rows, hy), iterations, error, derivatives, answer.pivots, answer.converged)
    return _solution(t * answer.x, scale, answer, stats, finite & definite, problem.c.shape[0])


def _scaled(solved: Solved, scale: Float[Array, " k"]) -> tuple[Array, Array, Array, Array]:
    """y, Hy, iterations and `definite` of the rows divided by `scale`; the row that stands for m = 0 is zero."""
    missing = scale.shape[0] - solved.y.shape[0]
    y, hy = (jnp.pad(a, ((0, missing), (0, 0))) / scale[:, None] for a in (solved.y, solved.hy))
    return y, hy, jnp.pad(solved.iterations, (0, missing)), solved.definite


def _shortening(x: Float[Array, " n"], hx: Float[Array, " n"], delta: Float[Array, ""]) -> Float[Array, ""]:
    """The factor t ≤ 1 with ½ (tx)ᵀH(tx) ≤ δ; 1 but for inexact solves. Constant under differentiation."""
    size = dot(x, hx)
    t = jnp.where(size > 2 * delta, jnp.sqrt(2 * delta / jnp.where(size > 0, size, 1)), 1)
    return jax.lax.stop_gradient(t)


def _solution(
    x: Float[Array, " n"],
    scale: Float[Array, " k"],
    answer: Answer,
    stats: Stats,
    trusted: Bool[Array, ""],
    m: int,
) -> Solution:
    """Zeros and INVALID where a number is not finite, or not to be `trusted`; of k rows the m that the problem has."""
    lam, nu = _unscaled(answer, scale[0], scale[1:])
    valid = trusted & jnp.all(jnp.isfinite(x)) & jnp.isfinite(lam) & jnp.all(jnp.isfinite(nu))
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
    """λ and ν of the problem as it was given. An infeasible problem's objective contains no g: it is in the units of δ.

    One row's ν is then as large as its violation, and may be larger than any number of the type, which x does not mind:
    the largest stands for it.
    """
    infeasible, most = answer.case == Case.INFEASIBLE, jnp.finfo(answer.x.dtype).max
    scale = jnp.where(infeasible, answer.unit, g_scale)
    lam = scale * answer.lam
    if b_scale.shape[0] > 1:
        return lam, scale / b_scale * answer.nu
    nu = jnp.where(answer.active, scale / b_scale, 1) * answer.nu
    return jnp.where(infeasible, jnp.minimum(lam, most), lam), jnp.where(infeasible, jnp.minimum(nu, most), nu)
