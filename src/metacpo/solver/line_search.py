"""Backtracking line search."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Outcome = TypeVar("Outcome")


def backtrack(
    trial: Callable[[Float[Array, ""]], tuple[Bool[Array, ""], Outcome]],
    ratio: float | Float[Array, ""],
    max_backtracks: int,
) -> tuple[Float[Array, ""], Bool[Array, ""], Int[Array, ""], Outcome]:
    """The largest α in {1, ρ, ρ², …, ρ^max_backtracks} that `trial` accepts, ρ = `ratio` in (0, 1).

    `trial(α)` returns (accept, outcome): its verdict and whatever it computed on the way (a pytree). Returns
    (α, accepted, count, outcome): α = 0 and accepted = False if none was accepted; `count` is the number of
    times that α was shortened, max_backtracks + 1 if none was accepted; `outcome` is the last trial's. `trial`
    must decide without side effects; under vmap all lanes run until the last one is decided.

    α is held constant under differentiation, and nothing that `trial` computes is differentiated.
    """

    def undecided(state):
        _, accepted, count, _ = state
        return ~accepted & (count <= max_backtracks)

    def shorten(state):
        alpha, _, count, _ = state
        accepted, outcome = jax.lax.stop_gradient(trial(alpha))
        accepted = jnp.asarray(accepted)
        return (
            jnp.where(accepted, alpha, alpha * ratio),
            accepted,
            jnp.where(accepted, count, count + 1),
            outcome,
        )

    ratio = jax.lax.stop_gradient(jnp.asarray(ratio))
    one = jnp.ones_like(ratio)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(trial, one)[1])
    start = (one, jnp.asarray(False), jnp.int32(0), nothing)
    alpha, accepted, count, outcome = jax.lax.while_loop(undecided, shorten, start)
    return jnp.where(accepted, alpha, 0), accepted, count, outcome
