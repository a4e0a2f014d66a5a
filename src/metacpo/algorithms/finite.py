"""What is not finite stays where it is: whole trees of numbers, and the weight of every task in a mean over tasks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every number of a tree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def task_weights(valid: Bool[Array, " M"], dtype=jnp.float32) -> Float[Array, " M"]:
    """Factors on the M tasks with which a mean over all of them is the mean over the valid ones.

    M/(number of valid tasks) for these, 0 for the others; exactly 1 each where all are valid, so that nothing of a
    healthy run changes. 0 for all where none is.
    """
    count = jnp.sum(valid, dtype=dtype)
    return jnp.where(valid, valid.shape[0] / jnp.maximum(count, 1.0), 0.0)


def masked_mean(x: Float[Array, "M *rest"], task_weight: Float[Array, " M"]) -> Float[Array, "*rest"]:
    """The mean over tasks with their weights; what a task of weight 0 holds does not matter, NaN included."""
    each = task_weight.reshape(-1, *[1] * (x.ndim - 1))
    rest = jnp.mean(jnp.where(each > 0, each * x, 0.0), axis=0)
    # The plain mean where all count: XLA merges it with sums inside x, and a product between them changes the rounding.
    return jnp.where(jnp.all(task_weight == 1), jnp.mean(x, axis=0), rest)
