"""How far the step is from the exact one, and its derivative from the exact derivative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.solver.problem import Answer, Case


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


def gradient_error(
    rhs: Float[Array, "k n"],
    y: Float[Array, "k n"],
    hy: Float[Array, "k n"],
    condition: Float[Array, ""],
    smallest_eigenvalue: float,
) -> Float[Array, ""]:
    """First-order estimate of the relative error, in ‖·‖_H, of a derivative of the step through y_i ≈ H⁻¹v_i.

    ‖y_i − H⁻¹v_i‖_H = ‖v_i − Hy_i‖_{H⁻¹} ≤ ‖v_i − Hy_i‖₂/√κ, κ the smallest eigenvalue: η is the largest of these,
    relative to ‖y_i‖_H. The slopes of the closed form are taken at such a y, which changes them by condition·η, and
    every derivative solves with H once more, with the same `CGSettings`: η again. Hence (1 + condition)·η.
    """
    rhs, y, hy = jax.lax.stop_gradient((rhs, y, hy))
    length = jnp.sqrt(jnp.maximum(jnp.sum(y * hy, axis=1), 0))
    miss = jnp.linalg.norm(rhs - hy, axis=1)
    eta = jnp.max(jnp.where(length > 0, miss / jnp.where(length > 0, length, 1), 0))
    eps = float(jnp.finfo(y.dtype).eps)
    estimate = (1 + jax.lax.stop_gradient(condition)) * eta / max(smallest_eigenvalue, eps) ** 0.5
    return jnp.where(smallest_eigenvalue > 0, estimate, jnp.inf)
