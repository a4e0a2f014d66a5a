"""Returns and advantages of one trajectory, by hand numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation.returns import discounts, gae, returns_to_go


def advantage(r, v, v_final, valid=None, terminated=False, gamma=0.5, lam=0.5):
    arrays = [jnp.asarray(x, jnp.float32) for x in (r, v, v_final, valid or [1] * len(r))]
    return np.asarray(gae(*arrays, jnp.asarray(terminated), (gamma, lam)))


def test_discounts():
    np.testing.assert_allclose(discounts(0.5, 4), [1, 0.5, 0.25, 0.125])
    np.testing.assert_array_equal(discounts(1.0, 3), [1, 1, 1])


def test_returns_to_go_by_hand():
    np.testing.assert_allclose(returns_to_go(jnp.array([1.0, 2.0, 4.0]), 0.5), [3, 4, 4])


def test_truncation_bootstraps_the_final_observation():
    # δ = (1 + 2 − 2, 2 + 4 − 4, 4 + 8 − 8) = (1, 2, 4) with V = (2, 4, 8), V_final = 16; γλ = 1/4.
    np.testing.assert_allclose(advantage([1, 2, 4], [2, 4, 8], 16), [1 + 3 / 4, 3, 4])


def test_termination_bootstraps_nothing():
    # As above but δ_2 = 4 + 0 − 8 = −4.
    np.testing.assert_allclose(advantage([1, 2, 4], [2, 4, 8], 16, terminated=True), [1 + 1 / 4, 1, -4])


@pytest.mark.parametrize("terminated", [False, True])
def test_a_truncated_episode_ends_where_its_steps_end(terminated):
    """An estimator that stops only at `terminated` would read what lies behind, here huge."""
    whole = advantage([1, 2], [2, 4], 16, terminated=terminated)
    tail = advantage([1, 2, 9e9, 9e9], [2, 4, 9e9, 9e9], 16, valid=[1, 1, 0, 0], terminated=terminated)
    np.testing.assert_array_equal(tail[:2], whole)
    np.testing.assert_array_equal(tail[2:], 0)


def test_lambda_one_is_the_return_minus_the_value():
    rng = np.random.default_rng(0)
    r, v, v_final, gamma = rng.normal(size=20), rng.normal(size=20), rng.normal(), 0.9
    G = np.array([sum(gamma ** (k - t) * r[k] for k in range(t, 20)) for t in range(20)])
    np.testing.assert_allclose(returns_to_go(jnp.asarray(r, jnp.float32), gamma), G, rtol=1e-5)
    bootstrap = gamma ** (20 - np.arange(20)) * v_final
    estimate = advantage(r, v, v_final, gamma=gamma, lam=1.0)
    np.testing.assert_allclose(estimate, G + bootstrap - v, atol=1e-5)
    estimate = advantage(r, v, v_final, gamma=gamma, lam=1.0, terminated=True)
    np.testing.assert_allclose(estimate, G - v, atol=1e-5)


def test_lambda_zero_is_the_temporal_difference():
    np.testing.assert_allclose(advantage([1, 2, 4], [2, 4, 8], 16, gamma=0.9, lam=0.0), [2.6, 5.2, 10.4])


def test_exact_values_leave_no_advantage():
    """V that obeys V_t = r_t + γV_{t+1} up to the bootstrapped end."""
    r, gamma, v = [0.3, -1.0, 2.0, 0.5], 0.9, [7.0]
    for reward in reversed(r):
        v.insert(0, reward + gamma * v[0])
    np.testing.assert_allclose(advantage(r, v[:-1], v[-1], gamma=gamma, lam=0.7), 0, atol=1e-6)
