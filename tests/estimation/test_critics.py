"""The critic finds value functions that it can represent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation.critics import fit_values

from .episodes import trajectory

T, B, O = 60, 30, 4
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(T + 1, B, O))


@jax.jit
def fit(data, gamma):
    """Values [T, B] and [B] of the reward, observations taken as they are."""
    v, v_final = fit_values(data, data.obs, data.final_obs, data.reward[..., None], gamma[None])
    return v[..., 0], v_final[..., 0]


def values(reward, gamma, z=Z, **ends):
    data = trajectory(z[:-1], reward, np.zeros((T, B)), final_obs=z[-1], **ends)
    return tuple(np.asarray(v) for v in fit(data, jnp.float32(gamma)))


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_linear_values_are_recovered(gamma):
    """Rewards r_t = V(z_t) − γV(z_{t+1}) of a V linear in z, z²: the truncated end is bootstrapped with V too."""
    V = 3.0 + Z @ [1.0, -2.0, 0.5, 0.0] + 0.5 * Z[..., 0] ** 2
    v, v_final = values(V[:-1] - gamma * V[1:], gamma)
    np.testing.assert_allclose(v, V[:-1], atol=0.05 * V.std())
    np.testing.assert_allclose(v_final, V[-1], atol=0.05 * V.std())


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_constant_reward_lasts_for_ever_if_only_the_time_is_over(gamma):
    v, v_final = values(np.full((T, B), 2.0), gamma)
    np.testing.assert_allclose(v, 2 / (1 - gamma), rtol=0.02)
    np.testing.assert_allclose(v_final, 2 / (1 - gamma), rtol=0.02)


def test_constant_reward_until_a_termination_is_a_finite_sum():
    gamma = 0.95
    v, v_final = values(np.full((T, B), 2.0), gamma, terminated=np.ones(B))
    expected = 2 * (1 - gamma ** (T - np.arange(T))) / (1 - gamma)
    np.testing.assert_allclose(v, np.tile(expected[:, None], B), atol=0.02 * expected[0])
    np.testing.assert_array_equal(v_final, 0)


def test_undiscounted_signals_stop_at_the_end_of_the_episode():
    v, v_final = values(np.full((T, B), 2.0), 1.0)
    np.testing.assert_allclose(v, np.tile(2 * (T - np.arange(T))[:, None], B), atol=0.02 * 2 * T)
    np.testing.assert_array_equal(v_final, 0)


def test_signals_have_their_own_discount():
    reward = RNG.normal(size=(T, B))
    data = trajectory(Z[:-1], reward, np.zeros((T, B)), final_obs=Z[-1])
    signals = jnp.stack([data.reward, 2 * data.reward + 1], axis=-1)
    together = fit_values(data, data.obs, data.final_obs, signals, jnp.array([0.9, 1.0]))
    for i, (signal, gamma) in enumerate(((reward, 0.9), (2 * reward + 1, 1.0))):
        for both, alone in zip(together, values(signal, gamma), strict=True):
            np.testing.assert_allclose(both[..., i], alone, atol=1e-3)


def test_steps_after_the_end_are_not_fitted():
    """Short episodes whose tail is rubbish have the values of the short episodes."""
    half, gamma = T // 2, 0.9
    V = 3.0 + Z @ [1.0, -2.0, 0.5, 0.0]
    reward = V[:-1] - gamma * V[1:]
    z = Z.copy()
    z[-1] = Z[half]  # the final observation is the one after the last valid step
    z[half:-1], reward[half:] = 50.0, 0.0
    valid = np.tile(np.arange(T)[:, None] < half, B)
    v, v_final = values(reward, gamma, z=z, valid=valid)
    np.testing.assert_allclose(v[:half], V[:half], atol=0.1 * V.std())
    np.testing.assert_allclose(v_final, V[half], atol=0.1 * V.std())
