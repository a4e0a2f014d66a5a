"""Value functions of one task, fitted to its own trajectories by regularised least squares.

The meta-learner visits a task for a few batches only, so its critic must be good after the first one. A ridge
regression on fixed features is: it has no state, no learning rate and nothing to carry into a checkpoint.

Features of a normalised observation z at step t: 1, z, z², tanh(Wz + w) with fixed random W, and powers of
the time left. With the value of the final observation bootstrapped at truncation, V_w(s) = φ(s)ᵀw must obey

    φ(s_t)ᵀw = G_t + γ^{T−t} φ(s_T)ᵀw      for every step t of an episode truncated at T,

which is linear in w: a regression of G_t (the return-to-go inside the episode) on φ(s_t) − γ^{T−t} φ(s_T).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.returns import returns_to_go
from metacpo.rollout import Trajectory

RANDOM_FEATURES = 64
STRIDE = 5  # neighbouring steps say nearly the same; every fifth is fitted
RIDGE = 1e-3  # relative to the mean square of a feature
ITERATIONS = 50  # of conjugate gradients on the normal equations (no batched LAPACK: it can deadlock)


def features(z: Float[Array, "*batch O"], time: Float[Array, "*batch"]) -> Float[Array, "*batch F"]:
    """Features of normalised observations z at time ∈ [0, 1], the share of the episode that has passed."""
    size = z.shape[-1]
    draw = jax.random.normal(jax.random.key(0), (size + 1, RANDOM_FEATURES), z.dtype)
    hidden = jnp.tanh(z @ (draw[:-1] / jnp.sqrt(jnp.asarray(size, z.dtype))) + draw[-1])
    left = (1.0 - time)[..., None]
    return jnp.concatenate([jnp.ones_like(left), z, z**2, hidden, left, left**2, left**3], axis=-1)


def fit_values(
    trajectory: Trajectory,
    z: Float[Array, "T B O"],
    z_final: Float[Array, "B O"],
    signals: Float[Array, "T B s"],
    gamma: Float[Array, " s"],
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"]]:
    """V(s_t) of every step and of the final observations, for signals (reward, costs) discounted by their γ.

    A signal with γ < 1 goes on after a truncation. With γ = 1 it is counted until the episode's end, where it
    stops: V there is 0.
    """
    steps = z.shape[0]
    time = jnp.arange(steps, dtype=z.dtype) / steps
    phi = features(z, jnp.broadcast_to(time[:, None], z.shape[:2]))
    phi_final = features(z_final, jnp.ones(z_final.shape[0], z.dtype))
    truncated = 1.0 - trajectory.terminated.astype(z.dtype)
    left = jnp.sum(trajectory.valid, axis=0) - jnp.arange(steps, dtype=z.dtype)[:, None]
    weight = trajectory.valid[::STRIDE].ravel()

    def fit(signal: Float[Array, "T B"], g: Float[Array, ""]):
        goes_on = jnp.where(g < 1, truncated, 0.0)
        G = jax.vmap(returns_to_go, in_axes=(1, None), out_axes=1)(signal, g)
        X = phi[::STRIDE] - (goes_on * g ** left[::STRIDE])[..., None] * phi_final
        w = _ridge(X.reshape(-1, X.shape[-1]), G[::STRIDE].ravel(), weight)
        return phi @ w, goes_on * (phi_final @ w)

    return jax.vmap(fit, in_axes=(2, 0), out_axes=(2, 1))(signals, gamma)


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
