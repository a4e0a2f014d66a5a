"""What an inner loop carries beside the policy, and may meta-learn the first value of."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float

InnerStateName = Literal["scale", "multiplier"]


class InnerState(eqx.Module):
    """The numbers beside φ that an update reads and hands on.

    - `multiplier` [m] > 0: the integral part of a Lagrange multiplier, in reward per cost.
    - `error` [m]: the constraint's value c at the update before, for a multiplier's derivative part.
    - `log_scale` []: log of the factor on the size of a step: on its trust region δ, or on its rate if it has none.

    A rule that needs none of them leaves them alone.
    """

    multiplier: Float[Array, "*M m"]
    error: Float[Array, "*M m"]
    log_scale: Float[Array, "*M"]

    @staticmethod
    def init(m: int, multiplier: float = 1.0, dtype: Any = float) -> "InnerState":
        """Before anything was seen."""
        return InnerState(jnp.full(m, multiplier, dtype), jnp.zeros(m, dtype), jnp.zeros((), dtype))


def pack(theta: Float[Array, " n"], inner_state: InnerState, learned: tuple[InnerStateName, ...]) -> Float[Array, " k"]:
    """Θ = (θ, log multiplier?, log_scale?): what the outer step moves, k = n + what is learned of the inner state.

    Logarithms, so that a step of a given length is a given factor whatever the knob's unit, and none changes sign.
    """
    parts = [theta]
    if "multiplier" in learned:
        parts.append(jnp.log(inner_state.multiplier))
    if "scale" in learned:
        parts.append(inner_state.log_scale[None])
    return jnp.concatenate(parts)


def unpack(
    packed: Float[Array, " k"], inner_state: InnerState, learned: tuple[InnerStateName, ...]
) -> tuple[Float[Array, " n"], InnerState]:
    """(θ, inner state) of Θ; what is not learned is as given."""
    m = inner_state.multiplier.shape[0]
    n = packed.shape[0] - ("multiplier" in learned) * m - ("scale" in learned)
    multiplier, log_scale = inner_state.multiplier, inner_state.log_scale
    if "multiplier" in learned:
        multiplier = jnp.exp(packed[n : n + m])
    if "scale" in learned:
        log_scale = packed[-1]
    return packed[:n], InnerState(multiplier, inner_state.error, log_scale)


def extended(
    H: lineax.AbstractLinearOperator | None, packed: Float[Array, " k"], n: int
) -> lineax.AbstractLinearOperator | None:
    """The metric of Θ: H on θ, the identity on the learned numbers: changing one by 14 % costs 0.01 nat."""
    if H is None or packed.shape[0] == n:
        return H

    def product(v: Float[Array, " k"]) -> Float[Array, " k"]:
        return jnp.concatenate([H.mv(v[:n]), v[n:]])

    structure = eqx.filter_eval_shape(lambda x: x, packed)
    return lineax.FunctionLinearOperator(product, structure, lineax.positive_semidefinite_tag)
