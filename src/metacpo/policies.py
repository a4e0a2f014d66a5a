"""The Gaussian policy as functions of a flat parameter vector, its KL divergence and its Fisher matrix."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array, Float, Key

STD_FLOOR = 1e-2  # an observation that never varies is divided by this instead of by zero
CLIP = 10.0  # normalised observations are clipped here, in standard deviations


class Normaliser(eqx.Module):
    """Running mean and variance of every observation; what a policy sees is (obs − mean)/std."""

    count: Float[Array, ""]
    mean: Float[Array, " O"]
    var: Float[Array, " O"]

    @staticmethod
    def init(observation_size: int, dtype: Any = float) -> "Normaliser":
        return Normaliser(jnp.float32(0), jnp.zeros(observation_size, dtype), jnp.ones(observation_size, dtype))

    def __call__(self, obs: Float[Array, "*batch O"]) -> Float[Array, "*batch O"]:
        std = jnp.maximum(jnp.sqrt(self.var), STD_FLOOR)
        return jnp.clip((obs - self.mean) / std, -CLIP, CLIP)

    def update(self, count: Float[Array, ""], mean: Float[Array, " O"], var: Float[Array, " O"]) -> "Normaliser":
        """Merged with the moments of `count` further observations (Chan et al. 1979, parallel variance)."""
        total = jnp.maximum(self.count + count, 1.0)
        share = count / total  # 1 for the first batch: it replaces the prior
        delta = mean - self.mean
        merged = (1.0 - share) * self.var + share * var + share * (1.0 - share) * delta**2
        return Normaliser(self.count + count, self.mean + share * delta, merged)


class Gaussian(eqx.Module):
    """Independent normal actions: mean [*batch, A] and log standard deviation [A]."""

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, " A"]

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * z**2 + self.log_std + 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def kl(self, other: "Gaussian") -> Float[Array, "*batch"]:
        """KL(self ‖ other) in nats."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return 0.5 * jnp.sum(ratio + z**2 - 1.0 - jnp.log(ratio), axis=-1)


@dataclass(frozen=True)
class GaussianPolicy:
    """A tanh MLP for the mean, a free log standard deviation; φ ∈ ℝⁿ holds all weights.

    A description, not a container: functions take φ, so that the algorithms read as the paper does.
    """

    observation_size: int
    action_size: int
    hidden: tuple[int, ...]
    initial_std: float

    def init(self, key: Key[Array, ""], dtype: Any = float) -> Float[Array, " n"]:
        """LeCun-normal weights, zero biases; a small last layer makes the first actions unbiased."""
        parts = []
        for layer, (fan_in, fan_out) in enumerate(self._shapes):
            scale = 0.1 if layer == len(self._shapes) - 1 else 1.0
            weight = jax.nn.initializers.lecun_normal()(jax.random.fold_in(key, layer), (fan_in, fan_out), dtype)
            parts += [scale * weight.ravel(), jnp.zeros(fan_out, dtype)]
        return jnp.concatenate([*parts, jnp.full(self.action_size, math.log(self.initial_std), dtype)])

    def __call__(self, phi: Float[Array, " n"], z: Float[Array, "*batch O"]) -> Gaussian:
        """π_φ(·|s) at normalised observations z."""
        layers, log_std = self._unravel(phi)
        for weight, bias in layers[:-1]:
            z = jnp.tanh(z @ weight + bias)
        weight, bias = layers[-1]
        return Gaussian(z @ weight + bias, log_std)

    def log_std(self, phi: Float[Array, " n"]) -> Float[Array, " A"]:
        """Log standard deviation of every action: the last A entries of φ."""
        return self._unravel(phi)[1]

    def fisher(
        self,
        phi: Float[Array, " n"],
        z: Float[Array, "*batch O"],
        weight: Float[Array, "*batch"],
        damping: float,
    ) -> lineax.AbstractLinearOperator:
        """H = ∇²_φ' mean_s KL(π_φ ‖ π_φ')|_{φ'=φ} + damping·I as a positive definite operator, never a matrix.

        For a Gaussian the Hessian at φ' = φ is JᵀMJ with J the Jacobian of (mean, log_std) and
        M = diag(1/σ², 2) per action; the mean over states is weighted by `weight` (0 leaves a state out).
        """

        def output(p: Float[Array, " n"]) -> tuple[Array, Array]:
            pi = self(p, z)
            return pi.mean, pi.log_std

        (_, log_std), jacobian = jax.linearize(output, phi)
        transposed = jax.linear_transpose(jacobian, phi)
        scale = (weight / jnp.maximum(jnp.sum(weight), 1e-8))[..., None] * jnp.exp(-2 * log_std)

        def product(v: Float[Array, " n"]) -> Float[Array, " n"]:
            mean_v, log_std_v = jacobian(v)
            return transposed((scale * mean_v, 2.0 * log_std_v))[0] + damping * v

        structure = jax.ShapeDtypeStruct(phi.shape, phi.dtype)
        return lineax.FunctionLinearOperator(product, structure, lineax.positive_semidefinite_tag)

    @property
    def size(self) -> int:
        """n, the number of parameters."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in self._shapes) + self.action_size

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
        return layers, phi[start:]


class Policy(eqx.Module):
    """A trained policy as users hold it: raw observations in, actions out, normaliser inside."""

    description: GaussianPolicy = eqx.field(static=True)
    phi: Float[Array, " n"]
    normaliser: Normaliser

    def __call__(
        self,
        obs: Float[Array | np.ndarray, "*batch O"],
        key: Key[Array, ""] | None = None,
        *,
        deterministic: bool = False,
    ) -> Float[Array, "*batch A"]:
        """The mean action if `deterministic`, else one drawn with `key`. Raises ValueError if that is missing.

        Actions are what the environment takes; Point-Circle's actuators clamp them to [-1, 1].
        """
        pi = self.description(self.phi, self.normaliser(jnp.asarray(obs, self.phi.dtype)))
        if deterministic:
            return pi.mean
        if key is None:
            raise ValueError("key: missing; a stochastic action needs one (or pass deterministic=True)")
        return pi.mean + jnp.exp(pi.log_std) * jax.random.normal(key, pi.mean.shape, pi.mean.dtype)
