"""Pooled algorithms: trained on the data of all tasks together, without inner steps.

Each is fine-tuned on a new task by as many of the same updates as a meta-learner gets. A docstring names the paper and
says where we differ from it.
"""

from dataclasses import replace

from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.steps import PCPOStep, TRPOStep

MARGIN = "estimation.outer_confidence"  # the margin of a pooled constraint
CONTROLLER = ("rule.multiplier", "rule.proportional", "rule.integral", "rule.derivative")


def cpo(parts: Parts) -> Algorithm:
    """CPO (Achiam et al. 2017, eqs. 10-14), pooled."""
    return _pooled(PolicyUpdate(), parts, (MARGIN,))


def trpo(parts: Parts) -> Algorithm:
    """TRPO (Schulman et al. 2015), pooled; blind to the cost."""
    return replace(_pooled(PolicyUpdate(step=TRPOStep()), parts), reads_costs=False)


def pcpo(parts: Parts) -> Algorithm:
    """PCPO (Yang et al. 2020, eq. 6) with projection in the KL metric, pooled. One constraint.

    Differs: the paper recovers from infeasibility by its projection alone; so do we, held to δ by the line search.
    """
    return replace(_pooled(PolicyUpdate(step=PCPOStep()), parts, (MARGIN,)), most_constraints=1)


def cpo_lagrangian(parts: Parts) -> Algorithm:
    """CPO's constrained step on the Lagrangian (Stooke et al. 2020 for the multiplier), pooled.

    The multiplier keeps its memory where a linearised constraint has none. That after training is the first one of
    fine-tuning.
    """
    return _pooled(PolicyUpdate(objective=parts.multiplier), parts, (MARGIN, *CONTROLLER))


def trpo_lagrangian(parts: Parts) -> Algorithm:
    """TRPO on the Lagrangian (Ray et al. 2019; PID multiplier: Stooke et al. 2020, algorithm 2), pooled."""
    return _pooled(PolicyUpdate(objective=parts.multiplier, step=TRPOStep()), parts, (MARGIN, *CONTROLLER))


def _pooled(rule: PolicyUpdate, parts: Parts, reads: tuple[str, ...] = ()) -> Algorithm:
    """The same rule in training and in fine-tuning, each with its own region."""
    inner, outer = (replace(rule, region=region) for region in (parts.inner, parts.outer))
    return Algorithm(inner, outer, adapts=False, reads=reads)
