"""Policies as functions of a flat parameter vector: what every one offers, the tanh MLP, a network of the user's."""

from metacpo.policies.base import Distribution, Policy
from metacpo.policies.gaussian import Gaussian, GaussianPolicy
from metacpo.policies.network import NetworkPolicy, network_policy
from metacpo.policies.network_check import NetworkError
from metacpo.policies.normaliser import CLIP, STD_FLOOR, Normaliser
from metacpo.policies.trained import TrainedPolicy

__all__ = [
    "CLIP",
    "STD_FLOOR",
    "Distribution",
    "Gaussian",
    "GaussianPolicy",
    "NetworkError",
    "NetworkPolicy",
    "Normaliser",
    "Policy",
    "TrainedPolicy",
    "network_policy",
]
