"""What a problem is given as, made what it is solved as: lists and NumPy arrays into arrays, a matrix into an operator.

Nothing is guessed: what is not a real floating number already is refused, by the name of the argument.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

Product = Callable[[Float[Array, " n"]], Float[Array, " n"]]


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


def product(linear: lx.AbstractLinearOperator, dtype: Any) -> Product:
    """v ↦ Hv for v of this floating type; an operator of another one is applied in its own."""
    structure = linear.in_structure()
    if structure.dtype == dtype:
        return linear.mv
    return lambda v: linear.mv(v.astype(structure.dtype)).astype(dtype)


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
