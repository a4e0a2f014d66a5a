"""A network of the user's, any Equinox module, as a policy over a flat parameter vector.

    class Network(eqx.Module):
        def __init__(self, observation_size, action_size, *, key): ...
        def __call__(self, z): ...        # [O] -> mean [A], or (mean [A], log σ [A])

Every JAX array in the module is a parameter; NumPy arrays, numbers and functions are constants. Where the module gives
the mean alone, one log σ for all states is a parameter beside it, as in the default policy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from metacpo.policies.gaussian import Gaussian, fisher
from metacpo.policies.network_check import (
    NetworkError,
    check_constants,
    check_parameters,
    check_start,
    is_parameter,
    made,
    returns_mean_alone,
)

Module = Callable[[Array], tuple[Array, Array]]  # z [O] ↦ mean [A] and log σ [A]


class WithLogStd(eqx.Module):
    """A network for the mean, and a log standard deviation that no state changes."""

    mean: Callable[[Array], Array]
    log_std: Float[Array | np.ndarray, " A"]  # a constant where it is NumPy's

    def __call__(self, z: Float[Array, " O"]) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        return self.mean(z), jnp.asarray(self.log_std, z.dtype)


@dataclass(frozen=True)
class NetworkPolicy:
    """A `Policy` whose φ holds the arrays of an Equinox module, in the order in which the module has them.

    make gives the module that a key begins with; module gives that of a φ, the constants put back. They and the size
    follow from the other fields, which alone tell two policies apart.
    """

    network: type[eqx.Module]
    observation_size: int
    action_size: int
    initial_std: float
    learn_std: bool
    size: int = field(compare=False)
    make: Callable[[Key[Array, ""]], Module] = field(compare=False, repr=False)
    module: Callable[[Float[Array, " n"]], Module] = field(compare=False, repr=False)

    def init(self, key: Key[Array, ""], dtype: Any = float) -> Float[Array, " n"]:
        return _flat(self.make(key), dtype)[0]

    def __call__(self, phi: Float[Array, " n"], z: Float[Array, "*batch O"]) -> Gaussian:
        return Gaussian(*_batched(self.module(phi), z))

    def fisher(
        self, phi: Float[Array, " n"], z: Float[Array, "*batch O"], weight: Float[Array, "*batch"], damping: float
    ) -> lineax.AbstractLinearOperator:
        return fisher(lambda p: self(p, z), phi, weight, damping)


def network_policy(
    network: Any, observation_size: int, action_size: int, initial_std: float, learn_std: bool = True
) -> NetworkPolicy:
    """The policy of a network. Raises NetworkError for one that does not fit, before any training is compiled.

    network: what the user named, to be a class of modules. initial_std: of the first policy's actions, where the
    network does not say that itself; with learn_std = False they stay as spread.
    """

    def given(key: Key[Array, ""]) -> Any:
        return made(network, observation_size, action_size, key)

    def with_log_std(key: Key[Array, ""]) -> Module:
        return WithLogStd(given(key), (jnp if learn_std else np).full(action_size, math.log(initial_std)))

    one, other = jax.random.key(0), jax.random.key(1)
    first = given(one)
    check_parameters(first, given(one), given(other))
    mean_alone = returns_mean_alone(first, observation_size, action_size)
    if not mean_alone and not learn_std:
        raise NetworkError("returns log σ itself beside learn_std = false; allowed: the mean alone")
    make = with_log_std if mean_alone else given
    phi, module = _flat(make(one), float)
    policy = NetworkPolicy(network, observation_size, action_size, initial_std, learn_std, phi.size, make, module)
    check_start(policy, phi)
    check_constants(policy, policy.init(other), lambda z: _batched(make(other), z))
    return policy


def _flat(module: Module, dtype: Any) -> tuple[Float[Array, " n"], Callable[[Float[Array, " n"]], Module]]:
    """The module's parameters as φ, and the way back, for φ of any float type."""
    arrays, constants = eqx.partition(module, is_parameter)
    phi, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(dtype), arrays))
    return phi, lambda phi: eqx.combine(unravel(phi), constants)


def _batched(module: Module, z: Float[Array, "*batch O"]) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch A"]]:
    return jnp.vectorize(module, signature="(o)->(a),(a)")(z)
