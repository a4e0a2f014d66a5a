"""The step before it is checked and unscaled, and a bound of its error."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.problem import Case


class Answer(eqx.Module):
    """x, Hx (constant under differentiation), λ, ν, case, active rows, edge and the search's account of itself.

    In the units of scaled g and b: see `Solution` for what each of them is.
    """

    x: Float[Array, " n"]
    hx: Float[Array, " n"]
    lam: Float[Array, ""]
    nu: Float[Array, " m"]
    case: Int[Array, ""]
    active: Bool[Array, " m"]
    edge: Bool[Array, ""]
    pivots: Int[Array, ""]
    converged: Bool[Array, ""]


def error_bound(
    rhs: Float[Array, "k n"],
    s: Float[Array, " m"],
    c: Float[Array, " m"],
    delta: Float[Array, ""],
    weight: Float[Array, " m"],
    answer: Answer,
    t: Float[Array, ""],
    smallest_eigenvalue: float,
) -> Float[Array, ""]:
    """A bound of ‖x − x*‖_H / √(2δ) for x = t·answer.x, rhs = (g, b_1, ..., b_m), s_j = b_jᵀH⁻¹b_j; see docs/solver.md.

    With f the objective (gᵀx; the violation if infeasible), L(x) = f(x) + νᵀ(c + Bx) + λ(½xᵀHx − δ) is λ-strongly
    convex in ‖·‖_H. For e = ∇L(x), ε = ‖e‖_{H⁻¹} ≤ ‖e‖₂/√κ, κ the smallest eigenvalue, its minimiser x̃ has

        ‖x − x̃‖_H ≤ ε/λ   and   L(x) − L(x̃) ≤ ε²/2λ,
        ½λ‖x* − x̃‖² ≤ L(x*) − L(x̃) ≤ f(x*) − L(x̃) ≤ f(x) − L(x̃) ≤ γ + ε²/2λ,

    γ = f(x) − L(x) ≥ 0 the duality gap, the last line for a feasible x. Hence ‖x − x*‖_H ≤ ε/λ + √(ε²/λ² + 2γ/λ).
    """
    rhs, s, c, delta, weight, answer = jax.lax.stop_gradient((rhs, s, c, delta, weight, answer))
    g, B, lam = rhs[0], rhs[1:], answer.lam
    x, hx = t * answer.x, t * answer.hx
    infeasible = answer.case == Case.INFEASIBLE
    v = c + B @ x
    objective, nu = jnp.where(infeasible, 0, g), answer.nu
    if B.shape[0] > 1:  # one row: f = bᵀx, and ν = 1 stands for its slope
        slope = jnp.where(s > 0, weight * jnp.maximum(v, 0) / jnp.where(s > 0, s, 1), 0)
        nu = jnp.where(infeasible, slope, nu)
    e = objective + nu @ B + lam * hx
    gap = lam * (delta - x @ hx / 2) - jnp.where(infeasible, 0, nu @ v)
    eps = float(jnp.finfo(x.dtype).eps)
    missed = jnp.where(infeasible, 0, jnp.max(v / (jnp.abs(c) + jnp.abs(B) @ jnp.abs(x) + eps)))
    known = (lam > 0) & (missed <= 1e3 * eps) & (smallest_eigenvalue > 0)
    lam = jnp.where(lam > 0, lam, 1)
    epsilon = jnp.linalg.norm(e) / max(smallest_eigenvalue, eps) ** 0.5
    bound = epsilon / lam + jnp.sqrt((epsilon / lam) ** 2 + 2 * jnp.maximum(gap, 0) / lam)
    return jnp.where(known, bound / jnp.sqrt(2 * delta), jnp.inf)
