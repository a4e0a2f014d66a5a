"""One half of a sample against the other: what its mean would be if there were nothing to measure."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def contrasts(count: int) -> Float[Array, "C count"]:
    """Rows a, Σa_i = 0 and Σa_i² = count, of one sign on one half of the items: Σa_i x_i/count contrasts the halves.

    It has mean 0 and the variance of the mean Σx_i/count for x_i alike and independent. Of equal halves a = ±1. Three
    ways to halve a sample (orthogonal to each other for a multiple of four), as far as it is large enough; one row of
    zeros for a single item, which has no halves: nothing is known of its noise then.
    """
    i = np.arange(count)
    rows = []
    for first in ((i & 1) == 0, (i & 2) == 0, ((i ^ (i >> 1)) & 1) == 0):
        if first.any() and not first.all():
            ratio = ((~first).sum() / first.sum()) ** 0.5
            rows.append(np.where(first, ratio, -1 / ratio))
    return jnp.asarray(np.array(rows) if rows else np.zeros((1, count)), float)
