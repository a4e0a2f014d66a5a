"""What the normaliser learns from a meta-iteration, and how far the observations have moved away from it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.algorithms.finite import all_finite, mean_of_sound, shares
from metacpo.algorithms.meta_gradient import Walk
from metacpo.policies import STD_FLOOR, Normaliser


def merged(normaliser: Normaliser, walk: Walk) -> tuple[Normaliser, Bool[Array, ""]]:
    """The normaliser with the moments of D^0 merged in (the meta-policy's own observations on all tasks), and whether
    that was finite; if not, it is as it was. Tasks without a valid step have nothing to say."""
    mean, var, share = _observed(walk)
    count = jnp.float32(walk.first.weight.size) * jnp.mean((share > 0).astype(jnp.float32))
    new = normaliser.update(count, mean, var)
    finite = all_finite(new)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, normaliser), finite


def drift(normaliser: Normaliser, walk: Walk) -> Float[Array, ""]:
    """How far the mean observation of D^0 is from the normaliser's before it learns of it: root mean square over the
    observations, each in its standard deviations. 0 as long as it has seen nothing."""
    mean, _, share = _observed(walk)
    apart = (mean - normaliser.mean) / jnp.maximum(jnp.sqrt(normaliser.var), STD_FLOOR)
    known = (normaliser.count > 0) & jnp.any(share > 0)
    return jnp.where(known, jnp.sqrt(jnp.mean(apart**2)), 0.0)


def _observed(walk: Walk) -> tuple[Float[Array, " O"], Float[Array, " O"], Float[Array, " M"]]:
    """Mean and variance of the observations of D^0, all tasks together, and the shares of these."""
    stats = jax.tree.map(lambda x: x[0], walk.stats)
    finite = jnp.all(jnp.isfinite(stats.obs_mean) & jnp.isfinite(stats.obs_var), axis=-1)
    share = shares(finite & (stats.length > 0))
    mean = mean_of_sound(stats.obs_mean, share)
    return mean, mean_of_sound(stats.obs_var + (stats.obs_mean - mean) ** 2, share), share
