"""What changes during a training: the state that a checkpoint holds."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from metacpo.algorithms.inner_state import InnerState
from metacpo.policies import Normaliser
from metacpo.training.setup import TrainingSetup


class TrainState(eqx.Module):
    """Everything that changes during a run; a checkpoint is exactly this."""

    theta: Float[Array, " n"]
    inner_state: InnerState
    normaliser: Normaliser
    key: Key[Array, ""]
    iteration: Int32[Array, ""]


def init_state(setup: TrainingSetup, seed: int) -> TrainState:
    """The state before the first meta-iteration."""
    key, init_key = jax.random.split(jax.random.key(seed))
    policy = setup.policy
    m = len(setup.tasks.cost_limit) if setup.algorithm.reads_costs else 0
    return TrainState(
        theta=policy.init(init_key, jnp.float32),
        inner_state=InnerState.init(m, setup.multiplier, jnp.float32),
        normaliser=Normaliser.init(policy.observation_size, jnp.float32),
        key=key,
        iteration=jnp.int32(0),
    )
