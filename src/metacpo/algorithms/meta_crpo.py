"""Meta-CRPO: CRPO's steps inside, and their start and size learned from a bound of their regret.

    F_i(θ, η) = KL(π_{φ_i^K} ‖ π_θ)/(ηK) + ½η·mean Â²

is mirror descent's bound on the regret of K steps of size η from θ against the comparator φ_i^K, as Meta-SRL (Khattar
et al. 2023) has it. Nothing is held: the outer step has no constraint.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.acceptance import LossAndConstraints
from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.inner_loop import ConstraintOn
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.meta_gradients import MetaProblem, TaskData
from metacpo.algorithms.objectives import CRPOSwitch
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.steps import NaturalGradientStep, TRPOStep
from metacpo.estimation import Batch, kl


@dataclass(frozen=True)
class RegretBound:
    """F_i = KL(π_{φ^K} ‖ π_θ)/(ηK) + ½η·mean_k mean Â², η the size of the natural steps, Â of what they lowered."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("none",)
    predicts_return: ClassVar[bool] = False

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints:
        inner = problem.inner
        assert isinstance(inner.step, NaturalGradientStep), "the bound is that of steps of a given size"
        eta, K = inner.step.rate * jnp.exp(inner_state.log_scale), data.updates.alpha.shape[0]

        def squared(batch: Batch) -> Float[Array, ""]:
            weights, _ = inner.objective(batch.c, inner_state)
            advantage = weights.reward * batch.reward_advantage - batch.cost_advantage @ weights.costs
            return jnp.sum(batch.weight * advantage**2)

        gap = kl(problem.policy, data.phi, theta, data.last) / (eta * K)
        bound = gap + 0.5 * eta * jax.lax.stop_gradient(jnp.mean(jax.vmap(squared)(data.batches)))
        return bound, data.last.c[:0]


def meta_crpo(parts: Parts) -> Algorithm:
    """In the spirit of Meta-SRL (Khattar et al. 2023): CRPO inside, its start and step size learned by regret bounds.

    Inner: CRPO (Xu, Liang and Lan 2021), natural gradient steps of a learned size (first `rule.step_size`). Outer: a
    TRPO step on `RegretBound`, in θ and log η. Differs: the comparator is the adapted policy and its own states
    instead of a DualDICE estimate of the optimum's; function approximation instead of softmax tables.
    """
    switch = CRPOSwitch(parts.rule.tolerance)
    return Algorithm(
        inner=PolicyUpdate(switch, NaturalGradientStep(parts.rule.step_size), parts.inner),
        outer=PolicyUpdate(switch, TRPOStep(), parts.outer),
        gradient=RegretBound(),
        constraint_on="none",
        learned=("scale",),
        reads=("rule.step_size", "rule.tolerance"),
    )
