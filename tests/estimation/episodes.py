"""Trajectories written down by hand."""

import jax.numpy as jnp
import numpy as np

from metacpo.rollout import Trajectory


def trajectory(obs, reward, cost, valid=None, terminated=None, final_obs=None, action=None, log_prob=None):
    """From arrays obs [T, B, O], reward [T, B], cost [T, B]; what is left out is 1 (valid) or 0."""
    T, B = np.shape(reward)

    def array(x, default):
        return jnp.asarray(default if x is None else x, jnp.float32)

    action = array(action, np.zeros((T, B, 1)))
    return Trajectory(
        obs=array(obs, 0),
        action=action,
        log_prob=array(log_prob, np.zeros((T, B))),
        reward=array(reward, 0),
        cost=array(cost, 0)[..., None],
        valid=array(valid, np.ones((T, B))),
        terminated=jnp.asarray(np.zeros(B) if terminated is None else terminated, bool),
        final_obs=array(final_obs, np.asarray(obs)[-1]),
        nonfinite=jnp.float32(0),
        position=jnp.zeros((T, B, 2)),
    )
