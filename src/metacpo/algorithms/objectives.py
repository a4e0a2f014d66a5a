"""What an update lowers: a weighted sum of the loss L_R and the constraints c, with weights that c itself decides.

    f = reward · L_R + costs · c

The weights are functions of c(φ) at the policy that is updated, and their derivative is part of the meta-gradient.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.inner_state import InnerState


class Weights(eqx.Module):
    """f = reward · L_R + Σ_j costs_j · c_j, both per step."""

    reward: Float[Array, "*M"]
    costs: Float[Array, "*M m"]


@runtime_checkable
class Objective(Protocol):
    """Constraint values c [m] (per step, positive where broken) and inner state ↦ weights, and the state afterwards."""

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]: ...


@dataclass(frozen=True)
class Reward:
    """The loss alone."""

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]:
        return Weights(jnp.ones((), c.dtype), jnp.zeros_like(c)), inner_state


@dataclass(frozen=True)
class Penalty:
    """L_R + price · Σ_j c_j with a fixed price, in reward per cost."""

    price: float = 1.0

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]:
        return Weights(jnp.ones((), c.dtype), jnp.full_like(c, self.price)), inner_state


@dataclass(frozen=True)
class PIDLagrangian:
    """(L_R + ν·c)/(1 + Σν) with a multiplier ν that a controller steers by c (Stooke et al. 2020, algorithm 2).

        I ← max(0, I + integral · c),   ν = max(0, proportional · c + I + derivative · max(0, c − c_before))

    proportional = derivative = 0 is dual gradient ascent, with `integral` its step size. Gains are in (reward per
    cost) per (cost per step). The division keeps a step's direction alone dependent on ν, not its scale.
    """

    proportional: float = 0.0
    integral: float = 5.0
    derivative: float = 0.0

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]:
        integral = jnp.maximum(0.0, inner_state.multiplier + self.integral * c)
        rise = jnp.maximum(0.0, c - inner_state.error)
        nu = jnp.maximum(0.0, self.proportional * c + integral + self.derivative * rise)
        share = 1.0 / (1.0 + jnp.sum(nu))
        return Weights(share, share * nu), InnerState(integral, c, inner_state.log_scale)


@dataclass(frozen=True)
class CRPOSwitch:
    """CRPO (Xu, Liang and Lan 2021): L_R while every c_j ≤ tolerance, else the most broken c_j alone.

    tolerance is in cost per step. The weights are constant in c on either side of the switch.
    """

    tolerance: float = 0.0

    def __call__(self, c: Float[Array, " m"], inner_state: InnerState) -> tuple[Weights, InnerState]:
        if c.shape[0] == 0:
            return Reward()(c, inner_state)
        broken = jnp.max(c) > self.tolerance
        worst = jax.nn.one_hot(jnp.argmax(c), c.shape[0], dtype=c.dtype)
        return Weights(jnp.where(broken, 0, jnp.ones((), c.dtype)), jnp.where(broken, worst, 0)), inner_state
