"""Value functions of one task, fitted to its own trajectories.

The meta-learner visits a task for a few batches only, so a critic starts from nothing and must be good after the
first one. Two are offered because each earned it (`benchmarks/critics.py`): ridge regression gives the better
gradient of the return, a network the better gradient of a cost that is a sharp function of the place.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.network import network_values
from metacpo.estimation.ridge import ridge_values
from metacpo.estimation.targets import Targets, bootstrapped_targets
from metacpo.rollout import Trajectory

CriticName = Literal["ridge", "network"]
# normalised observations of the steps [T, B, O] and of the ends [B, O], targets -> V of both, [T, B, s] and [B, s]
Critic = Callable[[Array, Array, Targets], tuple[Array, Array]]
CRITICS: dict[CriticName, Critic] = {"ridge": ridge_values, "network": network_values}


def fit_values(
    trajectory: Trajectory,
    z: Float[Array, "T B O"],
    z_final: Float[Array, "B O"],
    signals: Float[Array, "T B s"],
    gamma: Float[Array, " s"],
    critics: tuple[CriticName, ...],
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"]]:
    """V(s_t) of every step and of the final observations, for signals (reward, costs), each with its γ and critic."""
    targets = bootstrapped_targets(trajectory, signals, gamma)
    parts, first = [], 0
    for name, group in groupby(critics):  # neighbours with the same critic are fitted together
        after = first + len(list(group))
        parts.append(CRITICS[name](z, z_final, targets.of(slice(first, after))))
        first = after
    v, v_final = zip(*parts, strict=True)
    return jnp.concatenate(v, axis=-1), jnp.concatenate(v_final, axis=-1)
