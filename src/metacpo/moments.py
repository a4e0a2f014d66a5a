"""What the normaliser learns from a meta-iteration, and how far the observations have moved away from it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.algorithms.finite import mean_of_sound, shares
from metacpo.algorithms.meta_gradient import Walk
from metacpo.policies import STD_FLOOR, Normaliser

FARTHEST = 1e15  # standard deviations: its square is a number, and so is the sum of a few thousand of them


class Observed(NamedTuple):
    """Mean and variance of every observation of D^0, all tasks together; which of them [O] these are known of; how
    many tasks had any; and how many observations were left out of some task's, because a moment was not finite."""

    mean: Float[Array, " O"]
    var: Float[Array, " O"]
    known: Bool[Array, " O"]
    tasks: Float[Array, ""]
    lost: Float[Array, ""]


def merged(normaliser: Normaliser, walk: Walk) -> tuple[Normaliser, Float[Array, ""]]:
    """The normaliser with the moments of D^0 merged in (the meta-policy's own observations on all tasks), and how many
    observations were left out of that: their numbers are finite, but not their squares. Such an observation stays as it
    was, and the others go on. Tasks without a valid step have nothing to say."""
    seen = _observed(walk)
    share = seen.tasks / walk.first.weight.shape[0]
    new = normaliser.update(jnp.float32(walk.first.weight.size) * share, seen.mean, seen.var)
    finite = jnp.isfinite(new.mean) & jnp.isfinite(new.var)
    kept = seen.known & finite
    mean, var = jnp.where(kept, new.mean, normaliser.mean), jnp.where(kept, new.var, normaliser.var)
    return Normaliser(new.count, mean, var), seen.lost + jnp.sum(seen.known & ~finite, dtype=jnp.float32)


def drift(normaliser: Normaliser, walk: Walk) -> Float[Array, ""]:
    """How far the mean observation of D^0 is from the normaliser's before it learns of it: root mean square over the
    observations, each in its standard deviations. 0 as long as it has seen nothing."""
    seen = _observed(walk)
    apart = (seen.mean - normaliser.mean) / jnp.maximum(jnp.sqrt(normaliser.var), STD_FLOOR)
    apart = jnp.where(seen.known, jnp.clip(apart, -FARTHEST, FARTHEST), 0.0)
    known = (normaliser.count > 0) & jnp.any(seen.known)
    return jnp.where(known, jnp.sqrt(jnp.mean(apart**2)), 0.0)


def _observed(walk: Walk) -> Observed:
    stats = jax.tree.map(lambda x: x[0], walk.stats)
    finite = jnp.isfinite(stats.obs_mean) & jnp.isfinite(stats.obs_var)
    valid = (stats.length > 0)[:, None]
    share = jax.vmap(shares, in_axes=1, out_axes=1)(finite & valid)
    mean_of = jax.vmap(mean_of_sound, in_axes=1)
    mean = mean_of(stats.obs_mean, share)
    return Observed(
        mean=mean,
        var=mean_of(stats.obs_var + (stats.obs_mean - mean) ** 2, share),
        known=jnp.any(share > 0, axis=0),
        tasks=jnp.sum(jnp.any(share > 0, axis=1), dtype=jnp.float32),
        lost=jnp.sum(jnp.any(valid & ~finite, axis=0), dtype=jnp.float32),
    )
