"""What the normaliser learns from a meta-iteration, and how far the observations have moved away from it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metacpo.algorithms.finite import masked_mean, task_weights
from metacpo.algorithms.inner_loop import InnerLoop
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


def merged(normaliser: Normaliser, loop: InnerLoop) -> tuple[Normaliser, Float[Array, ""]]:
    """The normaliser with the moments of D^0 merged in (the meta-policy's own observations on all tasks), and how many
    observations were left out of that: their numbers are finite, but not their squares. Such an observation stays as it
    was, and the others go on. Tasks without a valid step have nothing to say."""
    seen = _observed(loop)
    task_weight = seen.tasks / loop.first.weight.shape[0]
    new = normaliser.update(jnp.float32(loop.first.weight.size) * task_weight, seen.mean, seen.var)
    finite = jnp.isfinite(new.mean) & jnp.isfinite(new.var)
    kept = seen.known & finite
    mean, var = jnp.where(kept, new.mean, normaliser.mean), jnp.where(kept, new.var, normaliser.var)
    return Normaliser(new.count, mean, var), seen.lost + jnp.sum(seen.known & ~finite, dtype=jnp.float32)


def drift(normaliser: Normaliser, loop: InnerLoop) -> Float[Array, ""]:
    """How far the mean observation of D^0 is from the normaliser's before it learns of it: root mean square over the
    observations, each in its standard deviations. 0 as long as it has seen nothing."""
    seen = _observed(loop)
    apart = (seen.mean - normaliser.mean) / jnp.maximum(jnp.sqrt(normaliser.var), STD_FLOOR)
    apart = jnp.where(seen.known, jnp.clip(apart, -FARTHEST, FARTHEST), 0.0)
    known = (normaliser.count > 0) & jnp.any(seen.known)
    return jnp.where(known, jnp.sqrt(jnp.mean(apart**2)), 0.0)


def _observed(loop: InnerLoop) -> Observed:
    stats = jax.tree.map(lambda x: x[0], loop.stats)
    finite = jnp.isfinite(stats.obs_mean) & jnp.isfinite(stats.obs_var)
    valid = (stats.length > 0)[:, None]
    task_weight = jax.vmap(task_weights, in_axes=1, out_axes=1)(finite & valid)
    mean_of = jax.vmap(masked_mean, in_axes=1)
    mean = mean_of(stats.obs_mean, task_weight)
    return Observed(
        mean=mean,
        var=mean_of(stats.obs_var + (stats.obs_mean - mean) ** 2, task_weight),
        known=jnp.any(task_weight > 0, axis=0),
        tasks=jnp.sum(jnp.any(task_weight > 0, axis=1), dtype=jnp.float32),
        lost=jnp.sum(jnp.any(valid & ~finite, axis=0), dtype=jnp.float32),
    )
