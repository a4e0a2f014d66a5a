"""How much of a gradient is signal, and what an update does with the answer.

A gradient ĝ is a mean over episodes. The contrast of two halves of them (estimation/halves.py),

    d = ½(ĝ_1 − ĝ_2),    E d = 0,    Cov d = Cov ĝ,

is what ĝ would be without a signal. Hence N = dᵀH⁻¹d estimates the part of q̂ = ĝᵀH⁻¹ĝ that is noise,
q̂ − N = ĝ_1ᵀH⁻¹ĝ_2 is q without it, and 1 − N/q̂ the share that is signal.

- A step for the loss takes its size from the region alone, whatever ĝ is: pure noise moves the policy as far as a clear
  signal does. `trust` scales the region down where the share is small.
- A step along H⁻¹b̂ seems to change the cost by ŝ = b̂ᵀH⁻¹b̂ and changes it by s: a repair is ŝ/s times too short.
  `debiasing` mends this by James and Stein's shrinkage.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ENOUGH = 0.5  # a gradient half of whose square is signal is followed as far as the region goes
LEAST = 1e-4  # of the region's size, which must be above 0: without any signal a step is a hundredth as long


class Signal(eqx.Module):
    """The share of a gradient's square, in [0, 1], that is signal: of the loss, and of every constraint.

    A measured property of the data: constant under differentiation, as the line search's α is.
    """

    loss: Float[Array, "*M"]
    cost: Float[Array, "*M m"]

    @staticmethod
    def full(m: int, dtype: Any = float) -> "Signal":
        """No noise, or nothing known of it."""
        return Signal(jnp.ones((), dtype), jnp.ones(m, dtype))


def trust(share: Float[Array, "*m"]) -> Float[Array, "*m"]:
    """The factor on a region's size: 1 from ENOUGH on; below, steps are shorter in proportion to the share."""
    return jnp.clip((share / ENOUGH) ** 2, LEAST, 1.0)


def measured(squares: Float[Array, " k"], noise: Float[Array, "C k"]) -> Signal:
    """From q̂ of the loss and of every constraint (k = 1 + m), and the N of their C contrasts. 1 where q̂ = 0."""
    noise = jnp.mean(noise, axis=0)
    share = jnp.where(squares > 0, 1 - noise / jnp.where(squares > 0, squares, 1), 1)
    share = jax.lax.stop_gradient(jnp.clip(share, 0, 1))
    return Signal(share[0], share[1:])


def debiasing(products: Float[Array, "k k"], signal: Signal) -> Float[Array, "k k"]:
    """W with W(f, b_1, ..., b_m) = (f, b̃_1, ..., b̃_m), from the vectors' products in H⁻¹; b̃ in the place of b̂.

    What a move along −H⁻¹f does to a constraint, r = b̂ᵀH⁻¹f, has no bias: f is (nearly) independent of b̂'s noise. What
    a move along −H⁻¹b̂ does has one: ŝ instead of s = ŝ − N. The vector b̃ in the span of both that predicts r and s is

        b̃ = βb̂ + (1 − β)(r/q)f,    β = (s − r²/q)/(ŝ − r²/q) = 1 − N/(ŝ − r²/q),

    b̂ with its part orthogonal to f shrunk by what of it is noise. β ∈ [0, 1] is constant under differentiation.
    """
    q, r, s = products[0, 0], products[1:, 0], jnp.diagonal(products)[1:]
    along = jnp.where(q > 0, r / jnp.where(q > 0, q, 1), 0)
    apart = s - along * r
    noise = (1 - signal.cost) * s
    beta = jnp.where(apart > 0, 1 - noise / jnp.where(apart > 0, apart, 1), 1)
    beta = jax.lax.stop_gradient(jnp.clip(beta, 0, 1))
    top = jnp.zeros_like(products[:1]).at[0, 0].set(1)
    return jnp.concatenate([top, jnp.concatenate([((1 - beta) * along)[:, None], jnp.diag(beta)], axis=1)])
