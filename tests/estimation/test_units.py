"""c and L_C have one unit: what a change of c predicts is what becomes of the cost, however episodes end.

Every step costs its action, drawn from N(μ, σ²), and ends the episode with probability p. Hence, with w_t = γᵗ under
the discounted measure and 1 under the other,

    J_C(μ) = μ · W,   W = Σ_{t<T} w_t (1 − p)ᵗ,

exactly, for a bandit (T = 1), a short task (12) and a long one (500).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation import EstimationSettings, constraint, make_batch
from metacpo.policies import GaussianPolicy, Normaliser

from .episodes import trajectory

POLICY = GaussianPolicy(observation_size=1, action_size=1, hidden=(), initial_std=0.5)
MEAN, SIGMA, GAMMA = 0.3, 0.5, 0.99
PHI = jnp.array([0.0, MEAN, np.log(SIGMA)], jnp.float32)  # weight, bias, log σ
# λ = 0: what an action costs is known at once, and the critic's error is small; λ = 1 is right too, and noisy.
SETTINGS = EstimationSettings(gamma=GAMMA, cost_gamma=1.0, cost_lam=0.0, confidence=0.5)


def episodes(T, stop, seed=0):
    """Enough for three digits; more of those that end by chance."""
    rng = np.random.default_rng(seed)
    B = max(40000 // T, 1500 if stop else 200)
    action = MEAN + SIGMA * rng.normal(size=(T, B, 1))
    valid = np.cumprod(np.vstack([np.ones((1, B)), rng.random((T - 1, B)) >= stop]), axis=0)
    ended = (valid[-1] == 0) | (rng.random(B) < stop)
    obs = np.zeros((T, B, 1))
    log_prob = POLICY(PHI, jnp.asarray(obs, jnp.float32)).log_prob(jnp.asarray(action, jnp.float32)) * valid
    cost = action[..., 0] * valid
    return trajectory(obs, np.zeros((T, B)), cost, valid, terminated=ended, action=action, log_prob=log_prob)


@partial(jax.jit, static_argnames="settings")
def predicted(data, epsilon, limit, settings):
    """c, its change as the mean action rises by ε, and how many (discounted) steps an episode has."""
    batch, stats = make_batch(data, Normaliser.init(1), limit[None], settings)
    there = PHI + epsilon * jnp.array([0.0, 1.0, 0.0])
    change = constraint(POLICY, there, batch) - constraint(POLICY, PHI, batch)
    length = stats.length if settings.cost_measure == "episode" else stats.discounted_length
    return batch.c[0], change[0], length


@pytest.mark.parametrize("stop", [0.0, 0.1])
@pytest.mark.parametrize("T", [1, 12, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("measure", ["episode", "discounted"])
def test_the_predicted_change_of_the_cost_is_the_realised_one(measure, T, stop):
    settings = dataclasses.replace(SETTINGS, cost_measure=measure, cost_gamma=GAMMA if measure == "discounted" else 1.0)
    w = GAMMA ** np.arange(T) if measure == "discounted" else np.ones(T)
    W = np.sum(w * (1 - stop) ** np.arange(T))
    epsilon, h = 1e-2, 0.4 * W
    c, change, length = predicted(episodes(T, stop), jnp.float32(epsilon), jnp.float32(h), settings)
    assert float(length) == pytest.approx(W, rel=0.05)
    # per episode: c is the excess, and its change that of J_C
    assert float(length * c) == pytest.approx((MEAN - 0.4) * W, abs=0.03 * W)
    assert float(length * change) == pytest.approx(epsilon * W, rel=0.06)
    # Hence the repair c + b ε = 0 ends at the limit: μ + ε = 0.4. In units that differ it would be too short by their
    # ratio: 100 for a discounted bandit, 11 for a discounted task of 12 steps.
    repair = -float(c) / (float(change) / epsilon)
    assert MEAN + repair == pytest.approx(0.4, abs=0.01)


def test_without_discounting_both_measures_are_the_same():
    """(1 − γ) would make every constraint 0 at γ = 1."""
    data = episodes(12, 0.1)
    found = [
        predicted(data, jnp.float32(1e-2), jnp.float32(1.0), dataclasses.replace(SETTINGS, gamma=1.0, cost_measure=m))
        for m in ("episode", "discounted")
    ]
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert abs(float(found[0][0])) > 1e-3
