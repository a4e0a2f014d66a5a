"""What `solve` refuses, and what it puts in the place of numbers that are not finite."""

from typing import NamedTuple

import jax.numpy as jnp
import lineax as lx
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from metacpo.solver.problem import Problem


class Inputs(NamedTuple):
    """g, the rows b and their c, δ and weights, all finite; `finite`: they are the problem's own."""

    g: Float[Array, " n"]
    b: Float[Array, "k n"]
    c: Float[Array, " k"]
    delta: Float[Array, ""]
    weight: Float[Array, " k"]
    finite: Bool[Array, ""]


def finite_inputs(problem: Problem) -> Inputs:
    """The inputs, or g = 0, b = 0, c = −1, δ = 1 if any is not finite or δ ≤ 0, so that nothing NaN flows on.

    m = 0 is one constraint that asks nothing: b = 0, c = −1.
    """
    g = problem.g
    b, c = problem.b.astype(g.dtype), problem.c.astype(g.dtype)
    weight = None if problem.weight is None else problem.weight.astype(g.dtype)
    delta = jnp.asarray(problem.delta, g.dtype)
    if c.shape[0] == 0:
        b, c = jnp.zeros_like(g)[None], -jnp.ones_like(delta)[None]
    finite = jnp.all(jnp.isfinite(g)) & jnp.all(jnp.isfinite(b)) & jnp.all(jnp.isfinite(c))
    finite = finite & jnp.isfinite(delta) & (delta > 0)
    if weight is None or weight.shape != c.shape:  # m = 0
        weight = jnp.ones_like(c)
    else:
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


def check_shapes(problem: Problem, derivative_floor: float, preconditioner: lx.AbstractLinearOperator | None) -> None:
    """ValueError, naming the argument, for shapes that do not fit each other."""
    g, b, c, weight = problem.g, problem.b, problem.c, problem.weight
    if g.ndim != 1 or g.shape[0] == 0:
        raise ValueError(f"g must have shape [n] with n ≥ 1, got {g.shape}")
    n = g.shape[0]
    if b.ndim != 2 or b.shape[1] != n:
        raise ValueError(f"b must have shape [m, {n}] to fit g of shape {g.shape}, got {b.shape}")
    if c.shape != b.shape[:1]:
        raise ValueError(f"c must have shape {b.shape[:1]} to fit b of shape {b.shape}, got {c.shape}")
    if weight is not None and weight.shape != c.shape:
        raise ValueError(f"weight must have shape {c.shape} to fit c of shape {c.shape}, got {weight.shape}")
    if jnp.shape(problem.delta) != ():
        raise ValueError(f"delta must be a scalar, got shape {jnp.shape(problem.delta)}")
    for name, operator in (("metric", problem.metric), ("preconditioner", preconditioner)):
        if operator is not None and (operator.in_size(), operator.out_size()) != (n, n):
            raise ValueError(
                f"{name} must map [{n}] to [{n}] to fit g of shape {g.shape}, "
                f"got [{operator.in_size()}] to [{operator.out_size()}]"
            )
    if not 0 < derivative_floor < 1:
        raise ValueError(f"derivative_floor must lie in (0, 1), got {derivative_floor}")


def check_values(problem: Problem) -> None:
    """ValueError, naming the argument, for numbers that are not finite, δ ≤ 0 or a weight ≤ 0.

    Only what has a value already: inside jit, vmap or grad such a problem has the case INVALID.
    """
    p = problem
    for name, value in (("g", p.g), ("b", p.b), ("c", p.c), ("delta", p.delta), ("weight", p.weight)):
        if value is None:
            continue
        finite, positive = jnp.all(jnp.isfinite(value)), jnp.all(jnp.asarray(value) > 0)
        if isinstance(finite, Tracer):
            continue
        if not finite:
            raise ValueError(f"{name} of shape {jnp.shape(value)} must be finite, got a NaN or an infinity in it")
        if name in ("delta", "weight") and not positive:
            raise ValueError(f"{name} of shape {jnp.shape(value)} must be positive, got {value}")
