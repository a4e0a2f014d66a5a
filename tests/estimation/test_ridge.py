"""The ridge critic: its numbers against float64, whatever they are compiled into, and what they say of a robot that
flees from its goal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation import EstimationSettings, make_batch
from metacpo.estimation.critics import fit_values
from metacpo.estimation.ridge import RIDGE, features
from metacpo.policies import Normaliser

from .episodes import trajectory

T, B, SIZE = 100, 12, 6
GAMMA = jnp.array([0.99, 1.0, 0.9])


def noisy_data(seed=0):
    """Truncated and terminated episodes of different lengths, and three signals [T, B, 3] that are nearly all noise."""
    rng = np.random.default_rng(seed)
    obs = np.cumsum(rng.normal(size=(T + 1, B, SIZE)), axis=0) / 5  # as a robot's: neighbouring steps are alike
    length = rng.integers(40, T + 1, B)
    valid = np.arange(T)[:, None] < length
    final = obs[length, np.arange(B)]
    signals = (rng.normal(size=(T, B, 3)) + obs[:-1, :, :3]) * valid[..., None]
    data = trajectory(obs[:-1], signals[..., 0], np.zeros((T, B)), valid, np.arange(B) % 3 == 0, final_obs=final)
    return data, jnp.asarray(signals, jnp.float32)


def values(data, signals):
    return fit_values(data, data.obs, data.final_obs, signals, GAMMA, 3 * ("ridge",))


def in_float64(data, signals, gamma):
    """The definition step by step, on every fifth step: V − c is fitted; the end is c, then what the first fit says."""
    valid, r = np.asarray(data.valid), np.asarray(signals, np.float64)
    length = valid.sum(axis=0)
    G = np.zeros((T + 1, B))
    for t in reversed(range(T)):
        G[t] = r[t] + gamma * G[t + 1]
    t = np.arange(T)[:, None]
    goes_on = (1.0 - np.asarray(data.terminated)) * (gamma < 1)
    ahead = goes_on * gamma ** np.maximum(length - t, 0)
    phi = np.asarray(features(data.obs, jnp.broadcast_to(jnp.arange(T)[:, None] / T, (T, B))), np.float64)
    phi_final = np.asarray(features(data.final_obs, jnp.asarray(length / T, jnp.float32)), np.float64)
    rows = np.flatnonzero((valid[::5] > 0).ravel())
    X, G, ahead = (x[:T:5].reshape(-1, *x.shape[2:])[rows] for x in (phi, G, ahead))
    scale = np.sqrt(np.mean(X**2, axis=0))
    penalty = np.sqrt(RIDGE * len(rows)) * np.eye(X.shape[1])
    constant = G.sum() / np.sum(1 - ahead)
    v_final = np.full(B, constant)
    for _ in range(2):
        y = G + ahead * np.tile(v_final, (T // 5, 1)).ravel()[rows] - constant
        w = np.linalg.lstsq(np.vstack([X / scale, penalty]), np.append(y, np.zeros(X.shape[1])), rcond=None)[0] / scale
        v_final = constant + phi_final @ w
    return constant + phi @ w, goes_on * v_final


def test_values_are_those_of_the_definition_in_float64():
    data, signals = noisy_data()
    v, v_final = jax.jit(values)(data, signals)
    for i, gamma in enumerate(np.asarray(GAMMA, np.float64)):
        exact, exact_final = in_float64(data, signals[..., i], gamma)
        np.testing.assert_allclose(v[..., i], exact, atol=1e-3 * exact.std())
        np.testing.assert_allclose(v_final[..., i], exact_final, atol=1e-3 * exact.std())


@pytest.mark.slow
def test_values_do_not_depend_on_what_they_are_compiled_into():
    """Alone and not compiled, compiled, and among other tasks in a larger program: within 1e-3 of their spread."""
    data, signals = noisy_data()
    plain = values(data, signals)
    compiled = jax.jit(values)(data, signals)
    others = [noisy_data(seed) for seed in (0, 1, 2)]
    tasks, all_signals = jax.tree.map(lambda *x: jnp.stack(x), *others)
    larger = jax.jit(lambda d, s: jax.tree.map(lambda x: x[0], jax.vmap(values)(d, 3 * s)))
    amplified = larger(tasks, all_signals)
    for a, b, c in zip(plain, compiled, amplified, strict=True):
        spread = float(jnp.std(plain[0]))
        np.testing.assert_allclose(b, a, atol=1e-3 * spread)
        np.testing.assert_allclose(c / 3, a, atol=1e-3 * spread)


@pytest.mark.parametrize("lam", [0.0, 0.9])
@pytest.mark.parametrize("drift", [0.1, -0.005], ids=["flees", "approaches"])
def test_a_robot_that_flees_has_advantages(drift, lam):
    """x' = x + a, a ~ N(μ, σ²), reward |x| − |x'| far from the goal at 0: V = −μ/(1 − γ), Â = μ − a in closed form.

    The gradient of the return in μ, E[Â (a − μ)/σ²], is −1 per step whatever the policy.
    """
    sigma, steps, episodes = 0.1, 100, 10
    rng = np.random.default_rng(3)
    a = drift + sigma * rng.normal(size=(steps, episodes))
    x = np.concatenate([rng.uniform(4, 6, (1, episodes)), a]).cumsum(axis=0)
    assert x.min() > 0
    data = trajectory(x[:-1, :, None], -a, np.zeros((steps, episodes)), final_obs=x[-1][:, None])
    seen = Normaliser.init(1).update(jnp.float32(steps), jnp.float32([x.mean()]), jnp.float32([x.var()]))
    settings = EstimationSettings(gamma=0.99, lam=lam, critic="ridge")
    batch, _ = jax.jit(lambda d: make_batch(d, seen, jnp.ones(1), settings))(data)
    gradient = np.mean(np.asarray(batch.reward_advantage) * (a - drift).ravel()) / sigma**2
    assert gradient == pytest.approx(-1, abs=0.25)  # −0.11 to −0.17 where the end is a regressor
