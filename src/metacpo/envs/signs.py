"""Parameters that are −1 or 1: left or right, this way round or that way round."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.envs.tasks import Parameter, TaskError

SIGN = Parameter(default=1.0, low=-1.0, high=1.0, unit="(-1 or 1)", whole=True)


def signs(key: Key[Array, ""], count: int) -> Float[Array, " n"]:
    """`count` independent fair draws of −1 or 1."""
    return jax.random.rademacher(key, (count,), jnp.float32)


def require_sign(params: dict[str, Float[Array, ""]], name: str) -> None:
    """Raises TaskError if this whole number in [−1, 1] is 0."""
    if float(params[name]) == 0:
        raise TaskError(f"task.{name}: 0 is not -1 or 1")
