"""Where the objects of an episode are: drawn one after the other, each at its distance from those before it.

As Safety-Gymnasium 1.0.0 does (`utils/random_generator.py`): an object with keep-out k is uniform in
[−(E − k), E − k]², E the half-width of the arena, and is drawn again while its distance to an earlier object of
keep-out k' is below k + k'. After too many draws all objects begin anew.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

DRAWS = 512  # of all objects together, in one beginning
BEGINNINGS = 3000
TRIALS = 16  # layouts that must all be found for a task to be accepted


def place(
    key: Key[Array, ""],
    extent: Float[Array, ""],
    keep_out: float,
    present: Bool[Array, " n"],
    taken: Float[Array, "f 2"],
    taken_keep_out: float = 0.0,
) -> Float[Array, "n 2"]:
    """Places (m) of n objects of one keep-out in ±extent, apart from the places `taken` and from each other.

    Objects that are not `present` are in nobody's way; where they are means nothing. All places are NaN if no
    beginning came to an end: the observation shows it, and the world is masked out and counted as one that broke.
    """

    def attempt(carry: tuple[Array, Array, Array, Array]):
        key, _, _, count = carry
        key, draw = jax.random.split(key)
        places, found = _layout(draw, extent - keep_out, 2 * keep_out, present, taken, keep_out + taken_keep_out)
        return key, places, found, count + 1

    def again(carry: tuple[Array, Array, Array, Array]) -> Bool[Array, ""]:
        return ~carry[2] & (carry[3] < BEGINNINGS)

    start = (key, jnp.zeros((present.shape[0], 2), jnp.float32), jnp.bool_(False), jnp.int32(0))
    _, places, found, _ = jax.lax.while_loop(again, attempt, start)
    return jnp.where(found, places, jnp.nan)


def _layout(
    key: Key[Array, ""],
    half: Float[Array, ""],
    apart: float,
    present: Bool[Array, " n"],
    taken: Float[Array, "f 2"],
    from_taken: float,
) -> tuple[Float[Array, "n 2"], Bool[Array, ""]]:
    """One beginning: places, and whether every object that is present found one.

    The draws are one stream, and every object takes the first that is still free.
    """
    draws = half * jax.random.uniform(key, (DRAWS, 2), jnp.float32, minval=-1.0, maxval=1.0)
    free = jnp.all(_squared(draws[:, None] - taken) >= from_taken**2, axis=1)

    def one(free: Bool[Array, " draws"], here: Bool[Array, ""]):
        place = draws[jnp.argmax(free)]
        found = jnp.any(free) | ~here
        return free & ((_squared(draws - place) >= apart**2) | ~here), (place, found)

    _, (places, found) = jax.lax.scan(one, free, present)
    return places, jnp.all(found)


def crowded(layout: Callable[[Any, Key[Array, ""]], Float[Array, "n 2"]], params: Any) -> bool:
    """Whether one of TRIALS layouts that `layout(params, key)` draws found no place for its objects. On the host.

    Compiled once for a `layout`, which takes over a second: pass the same function for every task.
    """
    return bool(_crowded(layout, params))


@partial(jax.jit, static_argnums=0)
def _crowded(layout: Callable[[Any, Key[Array, ""]], Float[Array, "n 2"]], params: Any) -> Bool[Array, ""]:
    places = jax.vmap(lambda key: layout(params, key))(jax.random.split(jax.random.key(0), TRIALS))
    return jnp.any(jnp.isnan(places))


def _squared(offset: Float[Array, "*k 2"]) -> Float[Array, "*k"]:
    return offset[..., 0] ** 2 + offset[..., 1] ** 2
