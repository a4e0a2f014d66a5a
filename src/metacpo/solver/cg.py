"""H⁻¹ times a few vectors without ever building H."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, Key

from metacpo.solver.adjoint import Adjoint, Implicit, Unrolled
from metacpo.solver.arguments import Product, product
from metacpo.solver.dense import like

Operator = lx.AbstractLinearOperator


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
        y, hy, iterations, definite = inverse_times(metric, v / size[:, None], settings, Implicit())
        return Solved(v, y * size[:, None], hy * size[:, None], iterations, definite)

    def combined(self, weights: Float[Array, "j k"]) -> "Solved":
        """The same for weights·v: H⁻¹ is linear, so that nothing is solved again."""
        v, y, hy = (jnp.matmul(weights, x, precision=jax.lax.Precision.HIGHEST) for x in (self.v, self.y, self.hy))
        iterations = jnp.full(weights.shape[0], jnp.max(self.iterations))
        definite = jnp.full(weights.shape[0], jnp.all(self.definite))
        return Solved(v, y, jax.lax.stop_gradient(hy), iterations, definite)

    def products(self, size: Float[Array, " k"] | float = 1.0) -> Float[Array, "k k"]:
        """v_iᵀH⁻¹v_j, of rows divided by `size`."""
        size = jnp.broadcast_to(jnp.asarray(size, self.v.dtype), self.v.shape[:1])[:, None]
        return jnp.matmul(self.v / size, (self.y / size).T, precision=jax.lax.Precision.HIGHEST)

    @property
    def residual(self) -> Float[Array, ""]:
        """The largest ‖v_i − Hy_i‖₂/‖v_i‖₂; NaN where a number is not finite or H is not positive definite."""
        known = jnp.all(jnp.isfinite(self.v)) & jnp.all(jnp.isfinite(self.hy)) & jnp.all(self.definite)
        return jnp.where(known, jnp.max(relative_residual(self.v, self.hy)), jnp.nan)


def row_sizes(v: Float[Array, "k n"]) -> Float[Array, " k"]:
    """max_j |v_ij|, or 1 for a row of zeros; constant under differentiation."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(v)), axis=1, initial=0)
    return jnp.where(size > jnp.finfo(v.dtype).tiny, size, 1)


def inverse_times(
    metric: Operator | None,
    rhs: Float[Array, "k n"],
    settings: CGSettings,
    adjoint: Adjoint,
    preconditioner: Operator | None = None,
) -> tuple[Float[Array, "k n"], Float[Array, "k n"], Int[Array, " k"], Bool[Array, " k"]]:
    """y_i ≈ H⁻¹v_i for every row v_i of `rhs`, all rows in one batched solve; Hy_i; the iterations of each; and
    whether H is positive along every direction that these searched. Where it is not, they end there.

    y is differentiated as `adjoint` says, implicitly with the same settings, also with respect to whatever the
    operator closes over; Hy is constant under differentiation. A y_i that comes out non-finite (H is singular,
    or not finite itself) is 0.

    Our own loop and not `lineax.CG`, whose version 0.1.1 (a) answers NaN once pᵀHp < 100·n·eps·‖r‖², in
    float32 with n = 1500 already at H = 0.01·I, and (b) stops after one iteration, as if converged, when
    atol = 0 and an entry of v is exactly zero (0/0 in its scaled residual).
    """
    if metric is None:
        k = rhs.shape[0]
        return rhs, jax.lax.stop_gradient(rhs), jnp.zeros(k, jnp.int32), jnp.ones(k, bool)
    times = product(metric, rhs.dtype)

    def conjugate_gradients(matvec: Product, v: Float[Array, " n"]):
        search = _Search(matvec, preconditioner and product(preconditioner, v.dtype), settings)
        y, count, definite = search(v, unrolled=isinstance(adjoint, Unrolled))
        # One number says both: the iterations, negative where the last one met curvature ≤ 0.
        return jnp.where(jnp.all(jnp.isfinite(y)), y, 0), jnp.where(definite, count, -count).astype(v.dtype)

    def inverse(v: Float[Array, " n"]) -> tuple[Float[Array, " n"], Array]:
        if isinstance(adjoint, Unrolled):
            return conjugate_gradients(times, v)
        # The count travels as one more entry of y, on which H is 1: JAX's own way, has_aux, fails under jacfwd with
        # vmap, and a right-hand side of two arrays cannot be transposed where one of them is constant.
        solution = jax.lax.custom_linear_solve(
            lambda y: jnp.append(times(y[:-1]), y[-1]),
            jnp.append(v, 0),
            lambda matvec, v: jnp.append(*conjugate_gradients(lambda y: matvec(jnp.append(y, 0))[:-1], v[:-1])),
            symmetric=True,
        )
        return solution[:-1], solution[-1]

    y, count = jax.vmap(inverse)(rhs)
    hy = jax.vmap(times)(jax.lax.stop_gradient(y))
    count = jax.lax.stop_gradient(count)
    return y, jax.lax.stop_gradient(hy), jnp.abs(count).astype(jnp.int32), count >= 0


@dataclass(frozen=True)
class _Search:
    """Hestenes and Stiefel's conjugate gradients with z = Mr, M ≈ H⁻¹ (the identity if None), from y = 0.

        α = rᵀz/pᵀHp,   y += αp,   r −= αHp,   z = Mr,   β = (rᵀz)_new/rᵀz,   p = z + βp

    They end at a p with pᵀHp ≤ 0: then H has an eigenvalue ≤ 0, whatever y would come to look like.
    """

    matvec: Product
    preconditioner: Product | None
    settings: CGSettings

    def __call__(
        self, v: Float[Array, " n"], *, unrolled: bool
    ) -> tuple[Float[Array, " n"], Int[Array, ""], Bool[Array, ""]]:
        """y, the iterations done, and whether pᵀHp > 0 in all of them.

        `unrolled`: a loop of `max_steps` that reverse mode can follow; iterations after the last are no change.
        """
        # v = 0 needs no iteration; the unrolled loop evaluates one all the same, on a vector without 0/0.
        zero = jnp.all(v == 0) & unrolled
        v = jnp.where(zero, 1, v)
        limit = jnp.maximum(jnp.square(self.settings.rtol) * _dot(v, v), self.settings.atol**2)
        z = self._preconditioned(v)
        start = (jnp.zeros_like(v), v, _dot(v, z), z, like(v, 0), like(v, True))

        def unfinished(state):
            _, r, rz, _, count, definite = state
            rr = rz if self.preconditioner is None else _dot(r, r)
            return (rr > limit) & (count < self.settings.max_steps) & definite

        def iterate_unless_finished(state, _):
            going = unfinished(state)
            # A finished lane repeats the first iteration and drops it, so that no 0/0 enters the derivative.
            safe = jax.tree.map(lambda now, first: jnp.where(going, now, first), state, start)
            return jax.tree.map(lambda new, old: jnp.where(going, new, old), self._iterate(safe), state), None

        if not unrolled:
            y, *_, count, definite = jax.lax.while_loop(unfinished, self._iterate, start)
            return y, count, definite
        (y, *_, count, definite), _ = jax.lax.scan(iterate_unless_finished, start, length=self.settings.max_steps)
        return jnp.where(zero, 0, y), jnp.where(zero, 0, count), definite | zero

    def _iterate(self, state):
        y, r, rz, p, count, _ = state
        hp = self.matvec(p)
        curvature = _dot(p, hp)
        alpha = rz / curvature
        y, r = y + alpha * p, r - alpha * hp
        z = self._preconditioned(r)
        rz_new = _dot(r, z)
        return y, r, rz_new, z + (rz_new / rz) * p, count + 1, ~(curvature <= 0)  # NaN says nothing of H

    def _preconditioned(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return r if self.preconditioner is None else self.preconditioner(r)


def diagonal(metric: Operator, key: Key[Array, ""], probes: int, floor: float) -> Float[Array, " n"]:
    """An estimate of diag H from `probes` products: mean of z ⊙ Hz, z random signs (Bekas et al. 2007).

    Kept at or above `floor` > 0, which no entry of diag H is below (a damping, say): a preconditioner divides by
    it. Constant under differentiation.
    """
    n = metric.in_size()
    dtype = metric.out_structure().dtype
    signs = jax.random.rademacher(key, (probes, n), dtype)
    estimate = jnp.mean(signs * jax.vmap(metric.mv)(signs), axis=0)
    return jax.lax.stop_gradient(jnp.maximum(estimate, floor))


def jacobi(diag: Float[Array, " n"]) -> Operator:
    """The preconditioner M = diag(1/`diag`), `diag` ≈ diag H > 0."""
    return lx.TaggedLinearOperator(lx.DiagonalLinearOperator(1 / diag), lx.positive_semidefinite_tag)


def _dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    return jnp.dot(u, v, precision=jax.lax.Precision.HIGHEST)


def relative_residual(rhs: Float[Array, "k n"], hy: Float[Array, "k n"]) -> Float[Array, " k"]:
    """‖v_i − Hy_i‖₂ / ‖v_i‖₂, with 0 for a row v_i = 0; constant under differentiation."""
    rhs = jax.lax.stop_gradient(rhs)
    norm = jnp.linalg.norm(rhs, axis=1)
    error = jnp.linalg.norm(rhs - jax.lax.stop_gradient(hy), axis=1)
    return jnp.where(norm > 0, error / jnp.where(norm > 0, norm, 1), 0)
