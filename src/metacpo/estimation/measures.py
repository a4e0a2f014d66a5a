"""Which of an episode's two costs the limit limits: the only place that decides it.

training/tags.py has what the two are called in the files of a run, for readers that do without JAX.
"""

from typing import Literal, TypeVar

CostMeasure = Literal["episode", "discounted"]
T = TypeVar("T")


def limited(measure: CostMeasure, episode: T, discounted: T) -> T:
    """Of the same thing for Σ c_t and for Σ γᵗ c_t (a cost, a length, a word), that of the limited cost."""
    return episode if measure == "episode" else discounted


def unlimited(measure: CostMeasure, episode: T, discounted: T) -> T:
    """That of the other one."""
    return limited(measure, discounted, episode)
