"""A critic by a small network, fitted from scratch to every batch: slower than ridge, and better for a sharp cost.

One tanh network a signal, of the normalised observation and the time, fitted by Adam to targets of unit variance. It
starts from the same weights for every batch, so that two fits differ by their data alone. The bootstrapped end is
part of the target and not differentiated (semi-gradient).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metacpo.estimation.targets import Targets

WIDTH, DEPTH = 32, 2
STEPS = 400  # with 100 full-batch steps both gradients were worse than ridge's
LEARNING_RATE = 1e-2  # at the start; a cosine takes it to 0
MINIBATCH = 10  # steps of every episode, evenly apart, since neighbours say nearly the same; then those after them


def network_values(
    z: Float[Array, "T B O"], z_final: Float[Array, "B O"], targets: Targets
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"]]:
    """V(s_t) of every step and of the final observations, for each signal."""
    start = eqx.nn.MLP(z.shape[-1] + 1, "scalar", WIDTH, DEPTH, jnp.tanh, dtype=z.dtype, key=jax.random.key(0))
    start_weights, rest = eqx.partition(start, eqx.is_inexact_array)
    adam = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))
    x = _inputs(z, targets.time)
    x_final = _inputs(z_final, targets.final_time)
    stride = max(1, z.shape[0] // MINIBATCH)
    minibatch = stride * jnp.arange(z.shape[0] // stride)
    share = targets.weight / jnp.maximum(jnp.sum(targets.weight), 1.0)

    def fit(G: Float[Array, "T B"], ahead: Float[Array, "T B"], goes_on: Float[Array, " B"]):
        mean = jnp.sum(share * G)
        std = jnp.sqrt(jnp.sum(share * (G - mean) ** 2)) + 1e-6

        def values(weights: eqx.nn.MLP, x: Float[Array, "*batch I"]) -> Float[Array, "*batch"]:
            return jnp.vectorize(eqx.combine(weights, rest), signature="(i)->()")(x) * std + mean

        def loss(weights: eqx.nn.MLP, t: Int[Array, " t"]) -> Float[Array, ""]:
            goal = G[t] + ahead[t] * jax.lax.stop_gradient(values(weights, x_final))
            error = (values(weights, x[t]) - goal) / std
            return stride * jnp.sum(share[t] * error**2)

        def step(carry: tuple[eqx.nn.MLP, optax.OptState], i: Int[Array, ""]):
            weights, state = carry
            gradient = jax.grad(loss)(weights, i % stride + minibatch)
            with jax.numpy_dtype_promotion("standard"):  # optax raises floats to whole powers
                updates, state = adam.update(gradient, state)
            return (eqx.apply_updates(weights, updates), state), None

        (weights, _), _ = jax.lax.scan(step, (start_weights, adam.init(start_weights)), jnp.arange(STEPS))
        return values(weights, x), goes_on * values(weights, x_final)

    return jax.vmap(fit, in_axes=(2, 2, 1), out_axes=(2, 1))(targets.G, targets.ahead, targets.goes_on)


def _inputs(z: Float[Array, "*batch O"], time: Float[Array, "*batch"]) -> Float[Array, "*batch I"]:
    return jnp.concatenate([z, 2.0 * time[..., None] - 1.0], axis=-1)
