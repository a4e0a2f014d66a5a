"""Critics find value functions that they can represent: ridge to a few percent, a network to a tenth."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation.critics import CRITICS, fit_values

from .episodes import trajectory

T, B = 60, 30  # long against 1/(1 − γ) of the bootstrapped γ below
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(T + 1, B, 4))


TOLERANCE = {"ridge": 0.04, "network": 0.1}
both_critics = pytest.mark.parametrize("critic", CRITICS)


@partial(jax.jit, static_argnums=2)
def fit(data, gamma, critic):
    """Values [T, B] and [B] of the reward, observations taken as they are."""
    v, v_final = fit_values(data, data.obs, data.final_obs, data.reward[..., None], gamma[None], (critic,))
    return v[..., 0], v_final[..., 0]


def values(critic, reward, gamma, z=Z, **ends):
    data = trajectory(z[:-1], reward, np.zeros((T, B)), final_obs=z[-1], **ends)
    return tuple(np.asarray(v) for v in fit(data, jnp.float32(gamma), critic))


def error(v, expected) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean((v - expected) ** 2)))


@pytest.mark.parametrize("gamma", [0.5, 0.9])
@both_critics
def test_linear_values_are_recovered(critic, gamma):
    """Rewards r_t = V(z_t) − γV(z_{t+1}) of a V linear in z, z²: the truncated end is bootstrapped with V too."""
    V = 3.0 + Z @ [1.0, -2.0, 0.5, 0.0] + 0.5 * Z[..., 0] ** 2
    v, v_final = values(critic, V[:-1] - gamma * V[1:], gamma)
    assert error(v, V[:-1]) < TOLERANCE[critic] * V.std()
    assert error(v_final, V[-1]) < TOLERANCE[critic] * V.std()


@pytest.mark.parametrize("gamma", [0.5, 0.9])
@both_critics
def test_constant_reward_lasts_for_ever_if_only_the_time_is_over(critic, gamma):
    v, v_final = values(critic, np.full((T, B), 2.0), gamma)
    forever = 2 / (1 - gamma)
    assert error(v, forever) < 0.02 * forever
    assert error(v_final, forever) < 0.02 * forever


@both_critics
def test_constant_reward_until_a_termination_is_a_finite_sum(critic):
    gamma = 0.95
    v, v_final = values(critic, np.full((T, B), 2.0), gamma, terminated=np.ones(B))
    expected = 2 * (1 - gamma ** (T - np.arange(T))) / (1 - gamma)
    assert error(v, expected[:, None]) < 0.2 * expected.std()
    np.testing.assert_array_equal(v_final, 0)


@both_critics
def test_undiscounted_signals_stop_at_the_end_of_the_episode(critic):
    v, v_final = values(critic, np.full((T, B), 2.0), 1.0)
    expected = 2.0 * (T - np.arange(T))
    assert error(v, expected[:, None]) < 0.05 * expected.std()
    np.testing.assert_array_equal(v_final, 0)


@pytest.mark.parametrize("critics", [("ridge", "ridge"), ("ridge", "network"), ("network", "network")])
def test_signals_have_their_own_discount_and_critic(critics):
    reward = RNG.normal(size=(T, B))
    data = trajectory(Z[:-1], reward, np.zeros((T, B)), final_obs=Z[-1])
    signals = jnp.stack([data.reward, 2 * data.reward + 1], axis=-1)
    fit_both = jax.jit(lambda d, s: fit_values(d, d.obs, d.final_obs, s, jnp.array([0.9, 1.0]), critics))
    together = fit_both(data, signals)
    for i, (signal, gamma) in enumerate(((reward, 0.9), (2 * reward + 1, 1.0))):
        for both, alone in zip(together, values(critics[i], signal, gamma), strict=True):
            assert error(both[..., i], alone) <= 0.05 * alone.std()


@both_critics
def test_steps_after_the_end_are_not_fitted(critic):
    """Short episodes whose tail is rubbish have the values of the short episodes."""
    half, gamma = T // 2, 0.9
    V = 3.0 + Z @ [1.0, -2.0, 0.5, 0.0]
    reward = V[:-1] - gamma * V[1:]
    z = Z.copy()
    z[-1] = Z[half]  # the final observation is the one after the last valid step
    z[half:-1], reward[half:] = 50.0, 0.0
    valid = np.tile(np.arange(T)[:, None] < half, B)
    v, v_final = values(critic, reward, gamma, z=z, valid=valid)
    assert error(v[:half], V[:half]) < 0.1 * V.std()
    assert error(v_final, V[half]) < 0.1 * V.std()


@both_critics
def test_an_early_end_of_a_long_episode_stays_finite(critic):
    """γ^{T−t} far behind the end overflows: it must not reach the fit, not even times 0."""
    valid = np.tile(np.arange(T)[:, None] < 2, B)
    v, v_final = values(critic, np.ones((T, B)) * valid, 1e-3, valid=valid)
    assert np.isfinite(v).all()
    assert np.isfinite(v_final).all()


@pytest.mark.parametrize("steps", [1, 4])
@both_critics
def test_every_step_of_a_short_episode_is_fitted(critic, steps):
    """Each step has its own observation and its own reward; none may be left to what its neighbours say."""
    obs = np.broadcast_to(np.eye(5, 4)[: steps + 1, None], (steps + 1, B, 4))
    reward = np.broadcast_to(np.array([1.0, -3.0, 5.0, -2.0])[:steps, None], (steps, B))
    data = trajectory(obs[:-1], reward, np.zeros((steps, B)), final_obs=obs[-1])
    v, v_final = fit(data, jnp.float32(1.0), critic)
    to_go = np.cumsum(reward[::-1], axis=0)[::-1]
    assert error(np.asarray(v), to_go) < 0.1
    np.testing.assert_array_equal(v_final, 0)  # γ = 1 counts until the end
