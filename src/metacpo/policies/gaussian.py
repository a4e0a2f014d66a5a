"""The Gaussian policy as functions of a flat parameter vector, its KL divergence and its Fisher matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float, Key


class Gaussian(eqx.Module):
    """Independent normal actions: mean [*batch, A] and log standard deviation, [A] or one of every state."""

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*#batch A"]

    @property
    def std(self) -> Float[Array, "*any A"]:
        return jnp.exp(self.log_std)

    def sample(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """mean + σ·noise."""
        return self.mean + self.std * noise

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * z**2 + self.log_std + 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def kl(self, other: "Gaussian") -> Float[Array, "*batch"]:
        """KL(self ‖ other) in nats."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return 0.5 * jnp.sum(ratio + z**2 - 1.0 - jnp.log(ratio), axis=-1)


def fisher(
    pi: Callable[[Float[Array, " n"]], Gaussian],
    phi: Float[Array, " n"],
    weight: Float[Array, "*batch"],
    damping: float,
) -> lineax.AbstractLinearOperator:
    """H of `Policy.fisher` for Gaussian actions; `pi` is π_φ at the states of `weight`, as a function of φ alone.

    The Hessian of the KL at φ' = φ is JᵀMJ with J the Jacobian of (mean, log σ) and M = diag(1/σ², 2) per action and
    state. A log σ that no state changes has one row of J, whose shares of the states add up to 1.
    """

    def output(p: Float[Array, " n"]) -> tuple[Array, Array]:
        at = pi(p)
        return at.mean, at.log_std

    (mean, log_std), jacobian = jax.linearize(output, phi)
    transposed = jax.linear_transpose(jacobian, phi)
    share = (weight / jnp.maximum(jnp.sum(weight), 1e-8))[..., None]
    mean_scale = share * jnp.exp(-2 * log_std)
    log_std_scale = 2.0 * share if log_std.shape == mean.shape else 2.0

    def product(v: Float[Array, " n"]) -> Float[Array, " n"]:
        mean_v, log_std_v = jacobian(v)
        return transposed((mean_scale * mean_v, log_std_scale * log_std_v))[0] + damping * v

    structure = jax.eval_shape(product, phi)
    return lineax.FunctionLinearOperator(product, structure, lineax.positive_semidefinite_tag)


@dataclass(frozen=True)
class GaussianPolicy:
    """A tanh MLP for the mean, one standard deviation for all states; φ ∈ ℝⁿ holds all weights. The default `Policy`.

    The logarithm of the standard deviation is a part of φ, or with learn_std = False a constant.
    """

    observation_size: int
    action_size: int
    hidden: tuple[int, ...]
    initial_std: float
    learn_std: bool = True

    def init(self, key: Key[Array, ""], dtype: Any = float) -> Float[Array, " n"]:
        """LeCun-normal weights, zero biases; a small last layer makes the first actions unbiased."""
        parts = []
        for layer, (fan_in, fan_out) in enumerate(self._shapes):
            scale = 0.1 if layer == len(self._shapes) - 1 else 1.0
            weight = jax.nn.initializers.lecun_normal()(jax.random.fold_in(key, layer), (fan_in, fan_out), dtype)
            parts += [scale * weight.ravel(), jnp.zeros(fan_out, dtype)]
        return jnp.concatenate([*parts, self._initial_log_std(dtype)] if self.learn_std else parts)

    def __call__(self, phi: Float[Array, " n"], z: Float[Array, "*batch O"]) -> Gaussian:
        """π_φ(·|s) at normalised observations z."""
        layers, log_std = self._unravel(phi)
        for weight, bias in layers[:-1]:
            z = jnp.tanh(z @ weight + bias)
        weight, bias = layers[-1]
        return Gaussian(z @ weight + bias, log_std)

    def fisher(
        self, phi: Float[Array, " n"], z: Float[Array, "*batch O"], weight: Float[Array, "*batch"], damping: float
    ) -> lineax.AbstractLinearOperator:
        return fisher(lambda p: self(p, z), phi, weight, damping)

    @property
    def size(self) -> int:
        """n, the number of parameters."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in self._shapes) + self.action_size * self.learn_std

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        sizes = (self.observation_size, *self.hidden, self.action_size)
        return list(pairwise(sizes))

    def _unravel(self, phi: Float[Array, " n"]) -> tuple[list[tuple[Array, Array]], Array]:
        """φ as ([(weight [in, out], bias [out]) per layer], log_std [A])."""
        layers, start = [], 0
        for fan_in, fan_out in self._shapes:
            end = start + fan_in * fan_out
            layers.append((phi[start:end].reshape(fan_in, fan_out), phi[end : end + fan_out]))
            start = end + fan_out
        return layers, phi[start:] if self.learn_std else self._initial_log_std(phi.dtype)

    def _initial_log_std(self, dtype: Any) -> Float[Array, " A"]:
        return jnp.full(self.action_size, math.log(self.initial_std), dtype)
