"""Backtracking line search."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def backtrack(
    accept: Callable[[Float[Array, ""]], Bool[Array, ""]],
    ratio: float | Float[Array, ""],
    max_backtracks: int,
) -> tuple[Float[Array, ""], Bool[Array, ""], Int[Array, ""]]:
    """The largest α in {1, ρ, ρ², …, ρ^max_backtracks} with `accept(α)`, ρ = `ratio` in (0, 1).

    Returns (α, accepted, count): α = 0 and accepted = False if none was accepted; `count` is the number of
    times that α was shortened, max_backtracks + 1 if none was accepted. `accept` runs once per trial and must
    decide without side effects; under vmap all lanes run until the last one is decided.

    α is held constant under differentiation, and nothing that `accept` computes is differentiated.
    """

    def undecided(state):
        _, accepted, count = state
        return ~accepted & (count <= max_backtracks)

    def trial(state):
        alpha, _, count = state
        accepted = jnp.asarray(accept(alpha))
        return jnp.where(accepted, alpha, alpha * ratio), accepted, jnp.where(accepted, count, count + 1)

    ratio = jax.lax.stop_gradient(jnp.asarray(ratio))
    start = (jnp.ones_like(ratio), jnp.asarray(False), jnp.int32(0))
    alpha, accepted, count = jax.lax.while_loop(undecided, trial, start)
    return jnp.where(accepted, alpha, 0), accepted, count
