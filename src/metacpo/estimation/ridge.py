"""A critic by regularised least squares: no state, no learning rate, nothing to carry into a checkpoint.

Features of a normalised observation z at step t: 1, z, z², tanh(Wz + w) with fixed random W, and powers of
the time left. V_w(s) = φ(s)ᵀw makes the targets' equation linear in w: a regression of G_t on
φ(s_t) − γ^{T−t} φ(s_T).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.targets import Targets

RANDOM_FEATURES = 64
STRIDE = 5  # neighbouring steps say nearly the same; every fifth is fitted,
FITTED = 10  # but of a short episode at least so many, or all
RIDGE = 1e-3  # relative to the mean square of a feature
ITERATIONS = 50  # of conjugate gradients on the normal equations (no batched LAPACK: it can deadlock)


def ridge_values(
    z: Float[Array, "T B O"], z_final: Float[Array, "B O"], targets: Targets
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"]]:
    """V(s_t) of every step and of the final observations, for each signal."""
    phi = features(z, targets.time)
    phi_final = features(z_final, targets.final_time)
    stride = min(STRIDE, max(1, z.shape[0] // FITTED))
    weight = targets.weight[::stride].ravel()

    def fit(G: Float[Array, "T B"], ahead: Float[Array, "T B"], goes_on: Float[Array, " B"]):
        X = phi[::stride] - ahead[::stride][..., None] * phi_final
        w = _ridge(X.reshape(-1, X.shape[-1]), G[::stride].ravel(), weight)
        return phi @ w, goes_on * (phi_final @ w)

    return jax.vmap(fit, in_axes=(2, 2, 1), out_axes=(2, 1))(targets.G, targets.ahead, targets.goes_on)


def features(z: Float[Array, "*batch O"], time: Float[Array, "*batch"]) -> Float[Array, "*batch F"]:
    """Features of normalised observations z at time ∈ [0, 1], the share of the episode that has passed."""
    size = z.shape[-1]
    draw = jax.random.normal(jax.random.key(0), (size + 1, RANDOM_FEATURES), z.dtype)
    hidden = jnp.tanh(z @ (draw[:-1] / jnp.sqrt(jnp.asarray(size, z.dtype))) + draw[-1])
    left = (1.0 - time)[..., None]
    return jnp.concatenate([jnp.ones_like(left), z, z**2, hidden, left, left**2, left**3], axis=-1)


def _ridge(X: Float[Array, "N F"], y: Float[Array, " N"], weight: Float[Array, " N"]) -> Float[Array, " F"]:
    """argmin_w Σ weight·(Xw − y)² + ridge·‖w‖² with columns scaled to unit mean square."""
    n = jnp.maximum(jnp.sum(weight), 1.0)
    scale = jnp.sqrt(jnp.sum(weight[:, None] * X**2, axis=0) / n) + 1e-6
    X = X / scale
    A = (weight[:, None] * X).T @ X / n
    A = A + RIDGE * jnp.eye(A.shape[0], dtype=A.dtype)
    rhs = X.T @ (weight * y) / n
    w, _ = jax.scipy.sparse.linalg.cg(lambda v: A @ v, rhs, maxiter=ITERATIONS, tol=1e-6)
    return w / scale
