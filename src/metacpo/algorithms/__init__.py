"""Policy updates, what joins them to a meta-learner, and every algorithm as a composition of these parts."""

from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.meta_gradients import META_GRADIENTS
from metacpo.algorithms.objectives import CRPOSwitch, Objective, Penalty, PIDLagrangian, Reward, Weights
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.registry import register_algorithm
from metacpo.algorithms.steps import (
    CPOStep,
    GradientStep,
    KLPenalisedStep,
    NaturalGradientStep,
    PCPOStep,
    StepRule,
    TRPOStep,
)

__all__ = [
    "META_GRADIENTS",
    "Algorithm",
    "CPOStep",
    "CRPOSwitch",
    "GradientStep",
    "KLPenalisedStep",
    "NaturalGradientStep",
    "Objective",
    "PCPOStep",
    "PIDLagrangian",
    "Parts",
    "Penalty",
    "PolicyUpdate",
    "Reward",
    "StepRule",
    "TRPOStep",
    "Weights",
    "register_algorithm",
]
