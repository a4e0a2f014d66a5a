"""Where the objects of an episode are: drawn one after the other, each at its distance from those before it.

As Safety-Gymnasium 1.0.0 does (`utils/random_generator.py`): an object with keep-out k is uniform in
[−(E − k), E − k]², E the half-width of the arena, and is drawn again while its distance to an earlier object of
keep-out k' is below k + k'. After TRIES such draws all objects begin anew.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

TRIES = 100  # draws of one object
LAYOUTS = 1000  # beginnings
TRIALS = 8  # layouts that must be found for a task to be accepted


def place(
    key: Key[Array, ""],
    extent: Float[Array, ""],
    keep_out: Float[np.ndarray, " n"],
    present: Bool[Array, " n"],
    fixed: Float[Array, "f 2"],
) -> Float[Array, "n 2"]:
    """Places (m) of n objects in ±extent; those that are not `present` are nowhere in the way, nor anywhere certain.

    `fixed` are places with keep-out 0 that were taken before. All places are NaN if LAYOUTS beginnings failed: the
    world shows it in its observation, and is masked out and counted like any other that broke.
    """
    taken = jnp.concatenate([jnp.zeros(fixed.shape[0]), jnp.asarray(keep_out, jnp.float32)])
    there = jnp.concatenate([jnp.ones(fixed.shape[0], bool), present])

    def attempt(carry: tuple[Array, Array, Array, Array]):
        key, _, _, count = carry
        key, draw = jax.random.split(key)
        places, found = _layout(draw, extent, taken, there, fixed)
        return key, places, found, count + 1

    def again(carry: tuple[Array, Array, Array, Array]) -> Bool[Array, ""]:
        return ~carry[2] & (carry[3] < LAYOUTS)

    start = (key, jnp.zeros((len(keep_out), 2)), jnp.bool_(False), jnp.int32(0))
    _, places, found, _ = jax.lax.while_loop(again, attempt, start)
    return jnp.where(found, places, jnp.nan)


def _layout(
    key: Key[Array, ""],
    extent: Float[Array, ""],
    keep_out: Float[Array, " f+n"],
    present: Bool[Array, " f+n"],
    fixed: Float[Array, "f 2"],
) -> tuple[Float[Array, "n 2"], Bool[Array, ""]]:
    """One beginning: places, and whether every object that is present found one."""
    first, count = fixed.shape[0], keep_out.shape[0] - fixed.shape[0]
    unit = jax.random.uniform(key, (count, TRIES, 2), minval=-1.0, maxval=1.0)
    places = jnp.concatenate([fixed, jnp.zeros((count, 2))])

    def one(places: Float[Array, "all 2"], index: Array):
        candidates = unit[index] * (extent - keep_out[first + index])
        apart = jnp.sqrt(jnp.sum((candidates[:, None] - places) ** 2, axis=-1))  # [TRIES, f + n]
        earlier = present & (jnp.arange(first + count) < first + index)
        free = jnp.all((apart >= keep_out + keep_out[first + index]) | ~earlier, axis=1)
        place = candidates[jnp.argmax(free)]
        return places.at[first + index].set(place), jnp.any(free) | ~present[first + index]

    places, found = jax.lax.scan(one, places, jnp.arange(count))
    return places[first:], jnp.all(found)
