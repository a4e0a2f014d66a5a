"""The numbers of a problem: what they are given as, what is refused, and what stands in for those that are not finite.

Lists and NumPy arrays become arrays, and a matrix an operator. Nothing is guessed: what is not a real floating number
already is refused, by the name of the argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float


def floating(name: str) -> Callable[[Any], Array]:
    """A converter to an array of floating numbers; ValueError, in one line that names the argument, for others."""

    def convert(value: Any) -> Array:
        return _floating(name, value)

    return convert


def optional(name: str) -> Callable[[Any], Array | None]:
    """The same for an argument that may be None."""

    def convert(value: Any) -> Array | None:
        return None if value is None else _floating(name, value)

    return convert


def scalar(name: str) -> Callable[[Any], Array | float]:
    """The same for a number; Python's own stay what they are, and take the type of what they meet."""

    def convert(value: Any) -> Array | float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number else _floating(name, value)

    return convert


def operator(name: str) -> Callable[[Any], lx.AbstractLinearOperator | None]:
    """A converter to a linear operator: itself, the one of a symmetric matrix, or None."""

    def convert(value: Any) -> lx.AbstractLinearOperator | None:
        if value is None or isinstance(value, lx.AbstractLinearOperator):
            return value
        matrix = _floating(name, value, "a Lineax operator, a matrix or None")
        if matrix.ndim != 2:
            raise ValueError(f"{name} must be a matrix of shape [n, n], got shape {matrix.shape}")
        return lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)

    return convert


def _floating(name: str, value: Any, wanted: str = "an array of floating numbers") -> Array:
    if not isinstance(value, Array | Tracer):
        try:
            value = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise ValueError(f"{name} must be {wanted}, got {type(value).__name__} of uneven shape") from None
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name} must be {wanted}, got {_what(value)}")
    return jnp.asarray(value)


def _what(value: Any) -> str:
    return value.dtype.name if value.dtype != object else f"{type(value.item() if value.size == 1 else value).__name__}"


def check_shapes(
    g: Array,
    b: Array,
    c: Array,
    delta: Array | float,
    weight: Array | None,
    metric: lx.AbstractLinearOperator | None,
) -> None:
    """ValueError, naming the argument, for shapes that do not fit each other."""
    if g.ndim != 1 or g.shape[0] == 0:
        raise ValueError(f"g must have shape [n] with n ≥ 1, got {g.shape}")
    n = g.shape[0]
    if b.ndim != 2 or b.shape[1] != n:
        raise ValueError(f"b must have shape [m, {n}] to fit g of shape {g.shape}, got {b.shape}")
    if c.shape != b.shape[:1]:
        raise ValueError(f"c must have shape {b.shape[:1]} to fit b of shape {b.shape}, got {c.shape}")
    if weight is not None and weight.shape != c.shape:
        raise ValueError(f"weight must have shape {c.shape} to fit c of shape {c.shape}, got {weight.shape}")
    if jnp.shape(delta) != ():
        raise ValueError(f"delta must be a scalar, got shape {jnp.shape(delta)}")
    if metric is not None and (metric.in_size(), metric.out_size()) != (n, n):
        raise ValueError(
            f"metric must map [{n}] to [{n}] to fit g of shape {g.shape}, "
            f"got [{metric.in_size()}] to [{metric.out_size()}]"
        )


def check_values(g: Array, b: Array, c: Array, delta: Array | float, weight: Array | None) -> None:
    """ValueError, naming the argument, for numbers that are not finite, δ ≤ 0 or a weight ≤ 0.

    Only what has a value already: inside jit, vmap or grad such a problem has the case INVALID.
    """
    for name, value in (("g", g), ("b", b), ("c", c), ("delta", delta), ("weight", weight)):
        if value is None:
            continue
        finite, positive = jnp.all(jnp.isfinite(value)), jnp.all(jnp.asarray(value) > 0)
        if isinstance(finite, Tracer):
            continue
        if not finite:
            raise ValueError(f"{name} of shape {jnp.shape(value)} must be finite, got a NaN or an infinity in it")
        if name in ("delta", "weight") and not positive:
            raise ValueError(f"{name} of shape {jnp.shape(value)} must be positive, got {value}")


class Inputs(NamedTuple):
    """g, the rows b and their c, δ and weights, all finite; `finite`: they are the problem's own."""

    g: Float[Array, " n"]
    b: Float[Array, "k n"]
    c: Float[Array, " k"]
    delta: Float[Array, ""]
    weight: Float[Array, " k"]
    finite: Bool[Array, ""]


def finite_inputs(
    g: Float[Array, " n"],
    b: Float[Array, "m n"],
    c: Float[Array, " m"],
    delta: Float[Array, ""] | float,
    weight: Float[Array, " m"] | None,
) -> Inputs:
    """The inputs, or g = 0, b = 0, c = −1, δ = 1 if any is not finite or δ ≤ 0, so that nothing NaN flows on.

    All take the floating type of g. m = 0 is one constraint that asks nothing: b = 0, c = −1.
    """
    b, c, delta = b.astype(g.dtype), c.astype(g.dtype), jnp.asarray(delta, g.dtype)
    weight = jnp.ones_like(c) if weight is None else weight.astype(g.dtype)
    if c.shape[0] == 0:
        b, c, weight = jnp.zeros_like(g)[None], -jnp.ones_like(delta)[None], jnp.ones_like(delta)[None]
    finite = jnp.all(jnp.isfinite(g)) & jnp.all(jnp.isfinite(b)) & jnp.all(jnp.isfinite(c))
    finite = finite & jnp.isfinite(delta) & (delta > 0)
    usable = jnp.all(jnp.isfinite(weight)) & jnp.all(weight > 0)
    finite, weight = finite & usable, jnp.where(usable, weight, 1)
    return Inputs(
        g=jnp.where(finite, g, 0),
        b=jnp.where(finite, b, 0),
        c=jnp.where(finite, c, -1),
        delta=jnp.where(finite, delta, 1),
        weight=weight,
        finite=finite,
    )
