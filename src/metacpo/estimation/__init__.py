"""From trajectories to numbers: costs, advantages, surrogates and constraint values, each with its unit."""

from metacpo.estimation.batch import Batch, EstimationSettings, make_batch, shared_cost_values
from metacpo.estimation.surrogates import constraint, kl, likelihoods, surrogates

__all__ = [
    "Batch",
    "EstimationSettings",
    "constraint",
    "kl",
    "likelihoods",
    "make_batch",
    "shared_cost_values",
    "surrogates",
]
