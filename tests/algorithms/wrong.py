"""CPO with the mistake of published implementations, to see that our tests can tell.

OmniSafe and SafePO pair g = +∇J, hence r = gᵀH⁻¹b of the other sign, with the dual of the convention in which g is
lowered: ν = (λc − r)/s and the intervals of λ that end at r/c. With r as in docs/conventions.md that reads
ν = (λc + r)/s.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from metacpo.algorithms.steps import Linearised, Proposal, _proposal
from metacpo.solver import Case


@dataclass(frozen=True)
class WrongSign:
    """The step of CPO for one constraint, with r of the wrong sign wherever the dual uses it."""

    limits = True
    searched = True

    def __call__(self, data: Linearised) -> Proposal:
        (y_g, y_b), residual = data.solved.y, data.solved.residual
        c, two_delta = data.c[0], 2 * data.delta
        q, r, s = data.g @ y_g, -(data.g @ y_b), data.b[0] @ y_b + 1e-12
        A, B = q - r**2 / s, two_delta - c**2 / s
        edge = r / jnp.where(c == 0, 1e-8, c)
        low, high = jnp.maximum(edge, 0), jnp.inf
        inside = jnp.sqrt(jnp.maximum(A, 0) / jnp.where(B > 0, B, 1)), jnp.sqrt(q / two_delta)
        lam_a = jnp.where(c < 0, jnp.clip(inside[0], 0, low), jnp.clip(inside[0], low, high))
        lam_b = jnp.where(c < 0, jnp.clip(inside[1], low, high), jnp.clip(inside[1], 0, low))
        value_a = -0.5 * (A / (lam_a + 1e-8) + B * lam_a) - r * c / s
        value_b = -0.5 * (q / (lam_b + 1e-8) + two_delta * lam_b)
        lam = jnp.where(value_a >= value_b, lam_a, lam_b)
        nu = jnp.maximum(lam * c - r, 0) / s
        dual = -(y_g + nu * y_b) / (lam + 1e-8)
        trpo, recovery = -jnp.sqrt(two_delta / q) * y_g, -jnp.sqrt(two_delta / s) * y_b
        x = jnp.where(B >= 0, dual, jnp.where(c < 0, trpo, recovery))
        case = jnp.where(B >= 0, Case.BINDING, jnp.where(c < 0, Case.SLACK, Case.INFEASIBLE))
        return _proposal(x, jnp.where((B >= 0) & (c > 0), Case.RECOVERING, case), residual)
