"""The scale of observations: what a policy sees has mean 0 and variance 1 over what was seen in training."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

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
