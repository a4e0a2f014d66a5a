"""A trained policy as users hold it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metacpo.policies.base import Policy
from metacpo.policies.normaliser import Normaliser


class TrainedPolicy(eqx.Module):
    """Raw observations in, actions out, normaliser inside."""

    description: Policy = eqx.field(static=True)
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
        return pi.sample(jax.random.normal(key, pi.mean.shape, pi.mean.dtype))
