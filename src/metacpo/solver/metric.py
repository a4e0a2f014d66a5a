"""H⁻¹ times a few vectors without ever building H."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float


class CGSettings(eqx.Module):
    """When conjugate gradients stop on Hy = v: ‖v − Hy‖₂ ≤ max(rtol·‖v‖₂, atol), or after `max_steps`.

    `atol` is in the units of v scaled to max|v_i| = 1. Stopping early is not an error: the last iterate is
    used, and `Solution.residual` says how good it is.
    """

    rtol: float = eqx.field(static=True, default=1e-6)
    atol: float = eqx.field(static=True, default=0.0)
    max_steps: int = eqx.field(static=True, default=100)


def inverse_times(
    metric: lx.AbstractLinearOperator | None, rhs: Float[Array, "k n"], settings: CGSettings
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """y_i ≈ H⁻¹v_i for every row v_i of `rhs`, all rows in one batched solve, and Hy_i.

    y is differentiated implicitly, dy = H⁻¹(dv − dH y), with the same settings, also with respect to whatever
    the operator closes over; Hy is constant under differentiation. A y_i that comes out non-finite (H is
    singular, or not finite itself) is 0.

    JAX's solver and not `lineax.CG`, whose version 0.1.1 (a) answers NaN once pᵀHp < 100·n·eps·‖r‖², in
    float32 with n = 1500 already at H = 0.01·I, and (b) stops after one iteration, as if converged, when
    atol = 0 and an entry of v is exactly zero (0/0 in its scaled residual).
    """
    if metric is None:
        return rhs, jax.lax.stop_gradient(rhs)

    def conjugate_gradients(matvec, v):
        y, _ = jax.scipy.sparse.linalg.cg(matvec, v, tol=settings.rtol, atol=settings.atol, maxiter=settings.max_steps)
        return jnp.where(jnp.all(jnp.isfinite(y)), y, 0)

    def inverse(v: Float[Array, " n"]) -> Float[Array, " n"]:
        return jax.lax.custom_linear_solve(metric.mv, v, conjugate_gradients, symmetric=True)

    y = jax.vmap(inverse)(rhs)
    return y, jax.lax.stop_gradient(jax.vmap(metric.mv)(jax.lax.stop_gradient(y)))


def relative_residual(rhs: Float[Array, "k n"], hy: Float[Array, "k n"]) -> Float[Array, ""]:
    """max_i ‖v_i − Hy_i‖₂ / ‖v_i‖₂, with 0 for a row v_i = 0; constant under differentiation."""
    rhs = jax.lax.stop_gradient(rhs)
    norm = jnp.linalg.norm(rhs, axis=1)
    error = jnp.linalg.norm(rhs - jax.lax.stop_gradient(hy), axis=1)
    return jnp.max(jnp.where(norm > 0, error / jnp.where(norm > 0, norm, 1), 0))
