"""Safety-Gymnasium's pseudo-lidar: where the objects are, as `bins` distances round the robot."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def to_ego(offset: Float[Array, "*k 2"], heading: Float[Array, " 2"]) -> Float[Array, "*k 2"]:
    """World-frame offsets in metres, seen from a robot whose x axis points along the unit vector `heading`."""
    cos, sin = heading[0], heading[1]
    x, y = offset[..., 0], offset[..., 1]
    return jnp.stack([x * cos + y * sin, y * cos - x * sin], axis=-1)


def pseudo_lidar(
    ego: Float[Array, "k 2"], max_distance: float, bins: int = 16, present: Bool[Array, " k"] | None = None
) -> Float[Array, " {bins}"]:
    """Closeness in [0, 1] of the nearest of k objects (those `present`) in each of `bins` sectors, with aliasing.

    For an object at distance ρ and angle θ ∈ [0, 2π): closeness v = max(0, max_distance − ρ)/max_distance in
    bin ⌊θ/(2π/bins)⌋; with a the fraction of that bin passed, the next bin gets a·v and the previous one
    (1 − a)·v; the largest value wins. Facts: Safety-Gymnasium 1.0.0, `bases/base_task.py::_obs_lidar_pseudo`.

    a is measured from the bin's own edge: in float32 an angle of nearly 2π, in bins, is off by 1e-6.
    """
    width = 2 * np.pi / bins
    distance = jnp.sqrt(jnp.sum(ego**2, axis=-1))
    value = jnp.maximum(0.0, max_distance - distance) / max_distance
    if present is not None:
        value = jnp.where(present, value, 0.0)
    theta = jnp.mod(jnp.arctan2(ego[:, 1], ego[:, 0]), 2 * jnp.pi)
    index = jnp.floor(theta / width).astype(jnp.int32) % bins
    angles = np.arange(bins) * width
    edges = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), ego.dtype)
    beyond = jax.vmap(to_ego)(ego, edges[index])
    alias = jnp.clip(jnp.arctan2(beyond[:, 1], beyond[:, 0]) / width, 0.0, 1.0)
    rings = jnp.zeros(bins, ego.dtype)
    rings = rings.at[index].max(value)
    rings = rings.at[(index + 1) % bins].max(alias * value)
    return rings.at[(index - 1) % bins].max((1.0 - alias) * value)
