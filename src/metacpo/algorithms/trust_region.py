"""The trust region of an update: its metric and size, and the data linearised at φ."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.signal import Signal, trust
from metacpo.estimation import Batch, likelihoods, surrogates
from metacpo.policies import Policy
from metacpo.runtime.numeric import Range
from metacpo.solver import CGSettings, nearest_feasible

LinearData = tuple[Float[Array, " n"], Float[Array, "m n"], Float[Array, " m"]]
Surrogates = Callable[[Policy, Array, Batch], tuple[Array, Array]]


@dataclass(frozen=True)
class TrustRegionSettings:
    """One constrained step. H is estimated on every `fisher_stride`-th state.

    max_kl is the largest δ, in nats, and objective_kl_fraction what of it a step may spend on the loss. The rest is
    for repairing a broken limit (see `trust_region`). Data of a safe policy hold few violations, so that the surrogate
    foresees little of the cost of going further; a step that repairs sees what it repairs.
    """

    max_kl: Annotated[float, Range("(0, inf)")] = 0.01
    objective_kl_fraction: Annotated[float, Range("(0, 1]")] = 1.0
    damping: Annotated[float, Range("[0, inf)")] = 0.05
    metric: Literal["kl", "euclidean"] = "kl"
    cg_iterations: Annotated[int, Range("[1, inf)")] = 10
    cg_tolerance: Annotated[float, Range("[0, inf)")] = 1e-4
    fisher_stride: Annotated[int, Range("[1, inf)")] = 10


def metric(policy: Policy, phi: Float[Array, " n"], batch: Batch, settings: TrustRegionSettings):
    """H at φ on every `fisher_stride`-th state (neighbours are nearly equal), or None for the identity."""
    if settings.metric == "euclidean":
        return None
    z, weight = batch.z[:: settings.fisher_stride], batch.kl_weight[:: settings.fisher_stride]
    return policy.fisher(phi, z, weight / jnp.maximum(jnp.sum(weight), 1e-8), settings.damping)


def trust_region(
    S: Float[Array, "m m"],
    c: Float[Array, " m"],
    scale: Float[Array, ""],
    signal: Signal,
    settings: TrustRegionSettings,
) -> Float[Array, ""]:
    """δ of a step from constraint values c, their gradients' products S = BH⁻¹Bᵀ and the learned factor `scale`.

    The shortest x with c + Bx ≤ 0 says what the repair of broken constraints needs (`solver.nearest_feasible`; for one
    constraint c²/2s). A step gets that, and what `objective_kl_fraction` gives the loss:

        δ = loss + min(½xᵀHx, max(0, max_kl − loss) · trust(costs)),
        loss = scale · objective_kl_fraction · max_kl · trust(loss)

    Differentiable in S, c and scale: the meta-gradient knows how φ changes the size of the steps that follow. The scale
    multiplies the loss's share alone: however small, it leaves the repair its room. trust: see signal.py.
    """
    loss = scale * settings.objective_kl_fraction * settings.max_kl * trust(signal.loss)
    room = jnp.where(loss < settings.max_kl, settings.max_kl - loss, 0)
    room = room * jnp.max(jnp.where(c > 0, trust(signal.cost), 0), initial=0)
    repair = nearest_feasible(S, c)
    return loss + jnp.where(repair <= room, repair, room)


def linearise(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> LinearData:
    """(g, b, c): the surrogates' gradients and the constraint's value at φ. Their derivative in φ is exact for given
    data: it counts how φ would have drawn them."""
    return _linearise(policy, surrogates, phi, batch)


def linearise_as_drawn(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> LinearData:
    """The same values on the data's own policy; the derivative takes the data, and c, as they came (E-MAML)."""
    g, b, _ = _linearise(policy, likelihoods, phi, batch)  # pyright: ignore[reportGeneralTypeIssues]  (partial)
    return g, b, batch.c


def contrast_gradients(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, "C k n"]:
    """The contrasts of the batch's halves, ½(ĝ_1 − ĝ_2) and the same of every b_j, k = 1 + m: see signal.py."""

    def opposed(sign: Float[Array, " N"]) -> Float[Array, "k n"]:
        weights = (batch.weight * sign, batch.cost_weight * sign)
        d_g, d_b, _ = linearise(policy, phi, eqx.tree_at(lambda D: (D.weight, D.cost_weight), batch, weights))
        return jnp.concatenate([d_g[None], d_b])

    return jax.vmap(opposed)(batch.contrast.T)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _linearise(policy: Policy, form: Surrogates, phi: Float[Array, " n"], batch: Batch) -> LinearData:
    (_, c), pullback = jax.vjp(lambda p: form(policy, p, batch), phi)
    unit = jnp.eye(c.shape[0] + 1, dtype=phi.dtype)  # first row picks L_R, the others the constraints
    (rows,) = jax.vmap(pullback)((unit[:, 0], unit[:, 1:]))
    return rows[0], rows[1:], c


def _linearise_fwd(policy: Policy, form: Surrogates, phi: Float[Array, " n"], batch: Batch):
    return _linearise(policy, form, phi, batch), (phi, batch)


def _linearise_bwd(policy: Policy, form: Surrogates, saved, cotangents):
    """Pull (v_g, v_b, v_c) back to φ, batch constant. Hessians are symmetric, hence

        v_gᵀ ∂g/∂φ + Σ_j v_bjᵀ ∂b_j/∂φ + v_cᵀ ∂c/∂φ = ∇_φ [ ∂L_R/∂φ·v_g + Σ_j ∂c_j/∂φ·v_bj + v_cᵀc ]:

    the gradient of directional derivatives. Exactly what autodiff of `_linearise` computes, by reverse over
    forward mode instead of reverse over a batched reverse: four times faster, a third of the memory.
    """
    phi, batch = saved
    v_g, v_b, v_c = cotangents

    def directional(p: Float[Array, " n"]) -> Float[Array, ""]:
        def along(v: Float[Array, " n"]):
            return jax.jvp(lambda q: form(policy, q, batch), (p,), (v,))

        (_, c), (dL_R, _) = along(v_g)
        dc = jax.vmap(lambda v: along(v)[1][1])(v_b)  # [m (direction), m (constraint)]
        return dL_R + jnp.trace(dc) + v_c @ c

    return jax.grad(directional)(phi), jax.tree.map(jnp.zeros_like, batch)


_linearise.defvjp(_linearise_fwd, _linearise_bwd)


def cg_settings(settings: TrustRegionSettings) -> CGSettings:
    return CGSettings(rtol=settings.cg_tolerance, atol=0.0, max_steps=settings.cg_iterations)
