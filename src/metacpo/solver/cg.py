"""H⁻¹ times a few vectors by conjugate gradients, without ever building H, and how that is differentiated."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.dense import dot, like

Operator = lx.AbstractLinearOperator
Product = Callable[[Float[Array, " n"]], Float[Array, " n"]]


class CGSettings(eqx.Module):
    """When conjugate gradients stop on Hy = v: ‖v − Hy‖₂ ≤ max(rtol·‖v‖₂, atol), or after `max_steps`.

    `atol` is in the units of v scaled to max|v_i| = 1. Stopping early is not an error: the last iterate is
    used, and `Solution.residual` says how good it is.

    `smallest_eigenvalue` > 0: a number that no eigenvalue of H is below (a damping, say), which turns residuals
    into the bound `Stats.error`; 0 (nothing known) leaves that bound infinite.
    """

    rtol: float = eqx.field(static=True, default=1e-6)
    atol: float = eqx.field(static=True, default=0.0)
    max_steps: int = eqx.field(static=True, default=100)
    smallest_eigenvalue: float = eqx.field(static=True, default=0.0)


def implicit(
    times: Product, v: Float[Array, " n"], settings: CGSettings
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """`conjugate_gradients`, with the adjoint dy = H⁻¹(dv − dH y) of every y = H⁻¹v: one more solve for a derivative.

    In v and in what `times` closes over, in both modes and every order; memory does not grow with the iterations.
    """
    # The count travels as one more entry of y, on which H is 1: JAX's own way, has_aux, fails under jacfwd with
    # vmap, and a right-hand side of two arrays cannot be transposed where one of them is constant.

    def inverse(matvec: Product, v: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.append(*conjugate_gradients(lambda y: matvec(jnp.append(y, 0))[:-1], v[:-1], settings))

    solution = jax.lax.custom_linear_solve(
        lambda y: jnp.append(times(y[:-1]), y[-1]), jnp.append(v, 0), inverse, symmetric=True
    )
    return solution[:-1], solution[-1]


class Solved(eqx.Module):
    """Vectors v_i with y_i ≈ H⁻¹v_i, Hy_i (constant under differentiation), the iterations that each y_i took, and
    whether these met only positive curvature: a y_i without it is no H⁻¹v_i of a metric."""

    v: Float[Array, "k n"]
    y: Float[Array, "k n"]
    hy: Float[Array, "k n"]
    iterations: Int[Array, " k"]
    definite: Bool[Array, " k"]

    @staticmethod
    def of(metric: Operator | None, v: Float[Array, "k n"], settings: CGSettings) -> "Solved":
        """One batched solve for all rows of v, scaled to size 1 meanwhile: squares of large numbers overflow."""
        size = row_sizes(v)
        y, hy, iterations, definite = inverse_times(metric, v / size[:, None], settings)
        return Solved(v, y * size[:, None], hy * size[:, None], iterations, definite)

    def combined(self, weights: Float[Array, "j k"]) -> "Solved":
        """The same for weights·v: H⁻¹ is linear, so that nothing is solved again."""
        v, y, hy = (dot(weights, x) for x in (self.v, self.y, self.hy))
        iterations = jnp.full(weights.shape[0], jnp.max(self.iterations))
        definite = jnp.full(weights.shape[0], jnp.all(self.definite))
        return Solved(v, y, jax.lax.stop_gradient(hy), iterations, definite)

    def products(self, size: Float[Array, " k"] | float = 1.0) -> Float[Array, "k k"]:
        """v_iᵀH⁻¹v_j, of rows divided by `size`."""
        size = jnp.broadcast_to(jnp.asarray(size, self.v.dtype), self.v.shape[:1])[:, None]
        return dot(self.v / size, (self.y / size).T)

    @property
    def residual(self) -> Float[Array, ""]:
        """The largest ‖v_i − Hy_i‖₂/‖v_i‖₂; NaN where a number is not finite or H is not positive definite."""
        known = jnp.all(jnp.isfinite(self.v)) & jnp.all(jnp.isfinite(self.hy)) & jnp.all(self.definite)
        return jnp.where(known, jnp.max(relative_residual(self.v, self.hy)), jnp.nan)


def row_sizes(v: Float[Array, "k n"]) -> Float[Array, " k"]:
    """max_j |v_ij|, or 1 for a row of zeros; constant under differentiation."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(v)), axis=1, initial=0)
    return jnp.where(size > jnp.finfo(v.dtype).tiny, size, 1)


def relative_residual(rhs: Float[Array, "k n"], hy: Float[Array, "k n"]) -> Float[Array, " k"]:
    """‖v_i − Hy_i‖₂ / ‖v_i‖₂, with 0 for a row v_i = 0; constant under differentiation."""
    rhs = jax.lax.stop_gradient(rhs)
    norm = jnp.linalg.norm(rhs, axis=1)
    error = jnp.linalg.norm(rhs - jax.lax.stop_gradient(hy), axis=1)
    return jnp.where(norm > 0, error / jnp.where(norm > 0, norm, 1), 0)


def inverse_times(
    metric: Operator | None, rhs: Float[Array, "k n"], settings: CGSettings
) -> tuple[Float[Array, "k n"], Float[Array, "k n"], Int[Array, " k"], Bool[Array, " k"]]:
    """y_i ≈ H⁻¹v_i for every row v_i of `rhs`, all rows in one batched solve; Hy_i; the iterations of each; and
    whether H is positive along every direction that these searched.

    y is differentiated implicitly, with the same settings, also with respect to whatever the operator closes over; Hy
    is constant under differentiation. A y_i that comes out non-finite (H is singular, or not finite itself) is 0.
    """
    if metric is None:
        k = rhs.shape[0]
        return rhs, jax.lax.stop_gradient(rhs), jnp.zeros(k, jnp.int32), jnp.ones(k, bool)
    times = product(metric, rhs.dtype)
    y, count = jax.vmap(lambda v: implicit(times, v, settings))(rhs)
    hy = jax.vmap(times)(jax.lax.stop_gradient(y))
    count = jax.lax.stop_gradient(count)
    return y, jax.lax.stop_gradient(hy), jnp.abs(count).astype(jnp.int32), count >= 0


def product(linear: Operator, dtype: Any) -> Product:
    """v ↦ Hv for v of this floating type; an operator of another one is applied in its own."""
    structure = linear.in_structure()
    if structure.dtype == dtype:
        return linear.mv
    return lambda v: linear.mv(v.astype(structure.dtype)).astype(dtype)


def conjugate_gradients(
    matvec: Product, v: Float[Array, " n"], settings: CGSettings
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Hestenes and Stiefel's conjugate gradients on Hy = v, from y = 0.

        α = rᵀr/pᵀHp,   y += αp,   r −= αHp,   β = (rᵀr)_new/rᵀr,   p = r + βp

    Returns y, 0 if it is not finite, and one number of v's type that says two things: the iterations done, negative
    where the last one met a p with pᵀHp ≤ 0. There they end: H has an eigenvalue ≤ 0, whatever y would come to look
    like.

    Our own loop and not `lineax.CG`, whose version 0.1.1 (a) answers NaN once pᵀHp < 100·n·eps·‖r‖², in
    float32 with n = 1500 already at H = 0.01·I, and (b) stops after one iteration, as if converged, when
    atol = 0 and an entry of v is exactly zero (0/0 in its scaled residual).
    """
    limit = jnp.maximum(jnp.square(settings.rtol) * dot(v, v), settings.atol**2)

    def unfinished(state):
        _, _, rr, _, count, definite = state
        return (rr > limit) & (count < settings.max_steps) & definite

    def iterate(state):
        y, r, rr, p, count, _ = state
        hp = matvec(p)
        curvature = dot(p, hp)
        alpha = rr / curvature
        y, r = y + alpha * p, r - alpha * hp
        rr_new = dot(r, r)
        return y, r, rr_new, r + (rr_new / rr) * p, count + 1, ~(curvature <= 0)  # NaN says nothing of H

    start = (jnp.zeros_like(v), v, dot(v, v), v, like(v, 0), like(v, True))
    y, *_, count, definite = jax.lax.while_loop(unfinished, iterate, start)
    return jnp.where(jnp.all(jnp.isfinite(y)), y, 0), jnp.where(definite, count, -count).astype(v.dtype)
