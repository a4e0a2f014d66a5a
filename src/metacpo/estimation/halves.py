"""Two halves of a sample, one against the other: what a mean would be if there were nothing to measure."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def contrast(count: int) -> Float[Array, " count"]:
    """a with Σa_i = 0 and Σa_i² = count, of one sign on every other item: Σa_i x_i/count is a contrast of two halves.

    It has mean 0 and the variance of the mean Σx_i/count for x_i alike and independent. Of equal halves a = ±1. Zeros
    for a single item, which has no halves: nothing is known of its noise then.
    """
    if count == 1:
        return jnp.zeros(1)
    first = (count + 1) // 2
    ratio = ((count - first) / first) ** 0.5
    return jnp.where(jnp.arange(count) % 2 == 0, ratio, -1 / ratio)
