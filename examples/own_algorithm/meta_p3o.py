"""Meta-P3O: an algorithm of one's own from the library's parts.

P3O (Zhang et al. 2022) lowers the loss with an exact penalty on what breaks a limit,

    f(φ) = L_R(φ) + price · Σ_j max(0, c_j(φ)),

which has the constrained optimum where `price` is above the largest multiplier. Here TRPO's step lowers it, inside and
outside, and the meta-gradient goes through it.
"""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

import metacpo
from metacpo.algorithms import META_GRADIENTS, Algorithm, Parts, PolicyUpdate, TRPOStep, Weights
from metacpo.algorithms.inner_state import InnerState
from metacpo.runtime.numeric import Range


@dataclass(frozen=True)
class ExactPenalty:
    """The gradient of f weighs L_R by 1, and a constraint by `price` where it is broken."""

    price: Annotated[float, Range("(0, inf)")] = 20.0

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]:
        return Weights(jnp.ones((), c.dtype), jnp.where(c > 0, self.price, 0.0).astype(c.dtype)), inner_state


def meta_p3o(parts: Parts) -> Algorithm:
    """The penalty's price is the setting `rule.penalty`."""
    penalty = ExactPenalty(parts.rule.penalty)
    return Algorithm(
        inner=PolicyUpdate(penalty, TRPOStep(), parts.inner),
        outer=PolicyUpdate(penalty, TRPOStep(), parts.outer),
        gradient=META_GRADIENTS[parts.meta.meta_gradient],
        reads=("rule.penalty", "meta.meta_gradient", "estimation.outer_confidence"),
    )


metacpo.register_algorithm("meta-p3o", meta_p3o)
