"""The functions of φ whose gradients are g and b: importance-ratio surrogates on a fixed batch (LVC).

Ratios count how φ would have drawn the data; likelihoods take the data as they came. On the policy that drew them both
have the same value and gradient, and different second derivatives.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.batch import Batch
from metacpo.policies import Policy


def surrogates(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> tuple[Float[Array, ""], Float[Array, " m"]]:
    """(L_R, c) at φ: what is minimised and what must be ≤ 0.

        L_R(φ) = −Σ weight · ρ · Â_R                  loss: reward per step, negated
        c(φ)   = c(φ_data) + L_C(φ) − L_C(φ_data)     cost per step,  L_C = Σ cost_weight · ρ · Â_C

    ρ = π_φ(a|s)/π_data(a|s) against the stored probabilities, so that second derivatives on fixed data keep the
    term that a log-probability surrogate loses (LVC; Rothfuss et al. 2019).
    """
    ratio = jnp.exp(policy(phi, batch.z).log_prob(batch.action) - batch.log_prob)
    L_R = -jnp.sum(batch.weight * ratio * batch.reward_advantage)
    change = jnp.sum((batch.cost_weight * (ratio - 1.0))[:, None] * batch.cost_advantage, axis=0)
    return L_R, batch.c + change


def likelihoods(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> tuple[Float[Array, ""], Float[Array, " m"]]:
    """(L_R, c) at φ with 1 + log ρ in the place of ρ: second derivatives without the score of the data.

    For estimators that add this score themselves (E-MAML; formulation I of Rothfuss et al. 2019).
    """
    log_ratio = policy(phi, batch.z).log_prob(batch.action) - batch.log_prob
    L_R = -jnp.sum(batch.weight * (1.0 + log_ratio) * batch.reward_advantage)
    return L_R, batch.c + jnp.sum((batch.cost_weight * log_ratio)[:, None] * batch.cost_advantage, axis=0)


def constraint(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, " m"]:
    """c(φ) alone."""
    return surrogates(policy, phi, batch)[1]


def kl(policy: Policy, phi: Float[Array, " n"], phi_new: Float[Array, " n"], batch: Batch) -> Float[Array, ""]:
    """Mean over the batch's states, weighted by `Batch.kl_weight`, of KL(π_φ ‖ π_φ'), in nats."""
    return jnp.sum(batch.kl_weight * policy(phi, batch.z).kl(policy(phi_new, batch.z)))
