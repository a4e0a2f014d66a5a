"""A critic by regularised least squares: no state, no learning rate, nothing to carry into a checkpoint.

Features of a normalised observation z at step t: 1, z, z², tanh(Wz + w) with fixed random W, and powers of
the time left. V_w(s) = φ(s)ᵀw is regressed on G_t + γ^{T−t} V(s_T), where V(s_T) is a number from the sweep before
and never part of the regressor (semi-gradient).

Why: with the end in the regressor, φ(s_t) − γ^{T−t} φ(s_T), the fit minimises a Bellman residual. If the reward is the
decrease of a distance and γ near 1, V = distance has almost no residual under *every* policy: it says that all of the
way will be made good, and every advantage vanishes. Sweeps without end come near the same solution. Hence few of them,
from an end that knows nothing of places: the constant c whose residual has mean 0, Σ(c − G_t − γ^{T−t} c) = 0, which is
the value of the mean reward for ever. With it few sweeps do not mean a short horizon. Numbers: docs/experiments.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.targets import Targets
from metacpo.solver.dense import MaskedSystem

RANDOM_FEATURES = 64
STRIDE = 5  # neighbouring steps say nearly the same; every fifth is fitted,
FITTED = 10  # but of a short episode at least so many, or all
RIDGE = 1e-3  # relative to the mean square of a feature: the normal matrix has a condition below F/RIDGE ≈ 1e5
SWEEPS = 2  # the first from a constant end, the second from the end as the first one sees it


def ridge_values(
    z: Float[Array, "T B O"], z_final: Float[Array, "B O"], targets: Targets
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"]]:
    """V(s_t) of every step and of the final observations, for each signal."""
    stride = min(STRIDE, max(1, z.shape[0] // FITTED))
    G, ahead, weight = targets.G[::stride], targets.ahead[::stride], targets.weight[::stride]
    share = weight / jnp.maximum(jnp.sum(weight), 1.0)
    phi = features(z, targets.time)
    X, scale = _unit_columns(phi[::stride], share)
    phi, phi_final = phi / scale, features(z_final, targets.final_time) / scale
    weighted = share[..., None] * X
    normal = _product("tbf,tbg->fg", weighted, X) + RIDGE * jnp.eye(X.shape[-1], dtype=X.dtype)
    # The same for all signals and sweeps: inverted once, each solution refined once by its residual.
    system = MaskedSystem.of(normal, jnp.ones(X.shape[-1], bool))

    c = _steady(G, ahead, share)
    deviation = (
        G - (1.0 - ahead) * c
    )  # V = c + φᵀw: of signals whose mean is large float32 keeps the digits that matter

    def sweep(v_final: Float[Array, "B s"]) -> Float[Array, "F s"]:
        """argmin_w Σ share·(φᵀw − deviation − ahead·v_final)² + ridge·‖w‖², v_final = V(s_T) − c."""
        return system.solve(_product("tbf,tbs->fs", weighted, deviation + ahead * v_final))

    w = sweep(jnp.zeros_like(targets.goes_on))
    for _ in range(SWEEPS - 1):
        w = sweep(phi_final @ w)
    return c + phi @ w, targets.goes_on * (c + phi_final @ w)


def features(z: Float[Array, "*batch O"], time: Float[Array, "*batch"]) -> Float[Array, "*batch F"]:
    """Features of normalised observations z at time ∈ [0, 1], the share of the episode that has passed."""
    size = z.shape[-1]
    draw = jax.random.normal(jax.random.key(0), (size + 1, RANDOM_FEATURES), z.dtype)
    hidden = jnp.tanh(z @ (draw[:-1] / jnp.sqrt(jnp.asarray(size, z.dtype))) + draw[-1])
    left = (1.0 - time)[..., None]
    return jnp.concatenate([jnp.ones_like(left), z, z**2, hidden, left, left**2, left**3], axis=-1)


def _unit_columns(
    X: Float[Array, "t B F"], share: Float[Array, "t B"]
) -> tuple[Float[Array, "t B F"], Float[Array, " F"]]:
    """X/scale with columns of unit mean square, and scale."""
    scale = jnp.sqrt(jnp.sum(share[..., None] * X**2, axis=(0, 1))) + 1e-6
    return X / scale, scale


def _steady(G: Float[Array, "t B s"], ahead: Float[Array, "t B s"], share: Float[Array, "t B"]) -> Float[Array, " s"]:
    """c with Σ share·(c − G − ahead·c) = 0 for each signal: what a steady stream of its mean is worth."""
    total, gone = (jnp.sum(share[..., None] * x, axis=(0, 1)) for x in (G, 1.0 - ahead))
    return jnp.where(gone > 0, total / jnp.where(gone > 0, gone, 1.0), 0.0)


def _product(axes: str, a: Array, b: Array) -> Array:
    """A sum over all fitted steps, in full float32 on accelerators too."""
    return jnp.einsum(axes, a, b, precision=jax.lax.Precision.HIGHEST)
