"""Meta-learners that Meta-CPO is compared with, of the same parts. meta_crpo.py has one more.

A docstring names the paper and says where we differ from it.
"""

from dataclasses import replace

from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.baselines import CONTROLLER, MARGIN
from metacpo.algorithms.meta_cpo import meta_cpo
from metacpo.algorithms.meta_gradients import META_GRADIENTS, FirstOrder, HessianFree
from metacpo.algorithms.objectives import CRPOSwitch, Penalty
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.steps import GradientStep, KLPenalisedStep, TRPOStep


def meta_trpo(parts: Parts) -> Algorithm:
    """MAML (Finn et al. 2017, eqs. 1-2) with TRPO's step inside and outside; blind to the cost.

    Differs from MAML-TRPO: the inner step is TRPO's too, as in the baseline of the Meta-CPO paper.
    """
    return Algorithm(
        inner=PolicyUpdate(step=TRPOStep(), region=parts.inner),
        outer=PolicyUpdate(step=TRPOStep(), region=parts.outer),
        gradient=META_GRADIENTS[parts.meta.meta_gradient],
        learned=parts.meta.learned,
        reads_costs=False,
        reads=("meta.meta_gradient", "meta.learned"),
    )


def meta_lagrangian(parts: Parts) -> Algorithm:
    """TRPO on the Lagrangian inside, CPO outside; the first multiplier of every task is meta-learned.

    Ours: no paper has it. The exact meta-gradient goes through the multiplier's controller too. `meta.learned` is
    added to "multiplier".
    """
    base = meta_cpo(parts)
    return replace(
        base,
        inner=PolicyUpdate(objective=parts.multiplier, step=TRPOStep(), region=parts.inner),
        learned=tuple(dict.fromkeys(("multiplier", *base.learned))),
        learnable=("scale", "multiplier"),
        reads=(*base.reads, *CONTROLLER),
    )


def maml_penalty(parts: Parts) -> Algorithm:
    """MAML on L_R + `rule.penalty`·c: gradient steps of size `rule.step_size` inside, TRPO's step outside.

    The baseline "MAML + penalty" of Xu and Zhu (2025). The inner steps have no line search, as MAML's.
    """
    penalty = Penalty(parts.rule.penalty)
    return Algorithm(
        inner=PolicyUpdate(penalty, GradientStep(parts.rule.step_size), parts.inner),
        outer=PolicyUpdate(penalty, TRPOStep(), parts.outer),
        gradient=META_GRADIENTS[parts.meta.meta_gradient],
        reads=("meta.meta_gradient", "rule.penalty", "rule.step_size"),
    )


def safe_meta(parts: Parts) -> Algorithm:
    """Efficient Safe Meta-RL (Xu and Zhu, NeurIPS 2025): closed-form adaptation, a gradient without Hessians.

    Inner: `KLPenalisedStep` with `rule.kl_price`, `rule.kl_cost_price`. Outer: TRPO's step on the return of adapted
    policies or, where the *meta-policy's* own cost is above its limit by `rule.tolerance`, on that cost (CRPO's
    switch). Differs: the tilt of the policy is a natural gradient step (steps.py says when they are the same), held to
    `inner`'s region by a line search; the paper adapts by one step, `meta.steps` says how many here.
    """
    penalised = KLPenalisedStep(parts.rule.kl_price, parts.rule.kl_cost_price)
    return Algorithm(
        inner=PolicyUpdate(step=penalised, region=parts.inner),
        outer=PolicyUpdate(CRPOSwitch(parts.rule.tolerance), TRPOStep(), parts.outer),
        gradient=HessianFree(),
        constraint_on="start",
        reads=("rule.kl_price", "rule.kl_cost_price", "rule.tolerance", MARGIN),
    )


def c_maml(parts: Parts) -> Algorithm:
    """Constrained MAML (Daaboul et al. 2024, arXiv 2406.14047): first-order, the meta-policy itself held safe.

    Inner: a constrained optimiser, CPO here. Outer: CPO's step with the first-order meta-gradient, the constraint on
    the meta-policy's own cost, which one safety critic for all tasks estimates. Differs: the paper's constrained
    optimisers are Lagrangian ones.
    """
    return Algorithm(
        inner=PolicyUpdate(region=parts.inner),
        outer=PolicyUpdate(region=parts.outer),
        gradient=FirstOrder(),
        constraint_on="start",
        global_critic=True,
        reads=(MARGIN,),
    )
