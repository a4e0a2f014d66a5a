"""Square roots whose value is exact and whose slope is bounded.

The slope of √x is unbounded at x = 0, and a gradient that passes there once is lost. These two functions take
the slope at max(x, floor) instead of x: exact for x ≥ floor, clipped below. `floor` > 0 and `tiny` > 0 are in
the units of x and constant under differentiation. Both differentiation modes work, to any order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def bounded_sqrt(x: Float[Array, ""], floor: Float[Array, ""]) -> Float[Array, ""]:
    """√max(x, 0), with slope 1 / (2√max(x, floor))."""
    return jnp.sqrt(jnp.maximum(x, 0))


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals, tangents):
    x, floor = primals
    dx, _ = tangents
    return bounded_sqrt(x, floor), dx / (2 * jnp.sqrt(jnp.maximum(x, floor)))


@jax.custom_jvp
def bounded_quotient(
    a: Float[Array, " *k"], x: Float[Array, ""], floor: Float[Array, ""], tiny: Float[Array, ""]
) -> Float[Array, " *k"]:
    """a / √max(x, tiny), with differential da/√z − (a/√z) dx/2z at z = max(x, floor).

    `tiny` ≤ `floor` is the rounding error of x: where x vanishes and a with it, the quotient is 0.
    """
    return a / jnp.sqrt(jnp.maximum(x, tiny))


@bounded_quotient.defjvp
def _bounded_quotient_jvp(primals, tangents):
    a, x, floor, tiny = primals
    da, dx, _, _ = tangents
    z = jnp.maximum(x, floor)
    return bounded_quotient(a, x, floor, tiny), da / jnp.sqrt(z) - (a / jnp.sqrt(z)) * (dx / (2 * z))
