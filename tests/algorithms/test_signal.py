"""What of a gradient is signal: measured on halves, and what updates make of it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import update
from metacpo.algorithms.signal import ENOUGH, LEAST, Signal, debiasing, measured, trust
from metacpo.estimation import EstimationSettings, make_batch
from metacpo.estimation.halves import contrasts
from metacpo.policies import Normaliser
from metacpo.rollout import Trajectory

from .problems import CPO, POLICY, initial, quick_jit


@pytest.mark.parametrize("count", [2, 5, 12])
def test_a_contrast_has_the_mean_0_and_the_variance_of_the_mean(count):
    rows = np.asarray(contrasts(count))
    assert len(rows) == (2 if count == 2 else 3)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(20000, count))
    for a in rows:
        assert abs(a.sum()) < 1e-5 and (a**2).sum() == pytest.approx(count, rel=1e-5)
        noise, mean = (x @ a) / count, x.mean(axis=1)
        assert abs(noise.mean()) < 0.05 and noise.var() == pytest.approx(mean.var(), rel=0.05)
    if count == 12:
        np.testing.assert_allclose(rows @ rows.T, 12 * np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(contrasts(1), [[0.0]])


def test_the_share_of_signal_is_unbiased_in_its_square():
    """ĝ = g + noise in 60 dimensions: q̂ − N is q on average, though q̂ is twice as large."""
    rng, n, count = np.random.default_rng(0), 60, 12
    g = rng.normal(size=n)
    g *= np.sqrt(n / 12) / np.linalg.norm(g)  # as long as its noise
    x = g + rng.normal(size=(4000, count, n))
    mean, d = x.mean(axis=1), np.einsum("kci,hc->khi", x, np.asarray(contrasts(count))) / count
    q, N = (mean**2).sum(axis=1), (d**2).sum(axis=2).mean(axis=1)
    assert q.mean() == pytest.approx(2 * g @ g, rel=0.02)
    assert (q - N).mean() == pytest.approx(g @ g, rel=0.03)
    share = jax.vmap(lambda q, N: measured(q, N).loss)(jnp.asarray(q[:, None]), jnp.asarray(N[:, None, None]))
    assert float(share.mean()) == pytest.approx(0.5, abs=0.03)


def test_nothing_to_measure_counts_as_signal_and_trust_is_bounded():
    signal = measured(jnp.array([0.0, 2.0, 1.0]), jnp.array([[0.0, 0.5, 4.0], [0.0, 0.5, 2.0]]))
    np.testing.assert_allclose(signal.loss, 1.0)
    np.testing.assert_allclose(signal.cost, [0.75, 0.0])
    np.testing.assert_allclose(trust(jnp.array([0.0, ENOUGH / 2, ENOUGH, 1.0])), [LEAST, 0.25, 1.0, 1.0])


def test_the_corrected_gradient_promises_r_and_s(x64):
    """b̃ᵀH⁻¹f = r; along H⁻¹b̂ it promises ŝ − N. H = I."""
    rng = np.random.default_rng(0)
    f, b = rng.normal(size=5), rng.normal(size=5)
    rows = jnp.asarray(np.stack([f, b]))
    noise_share = 0.4
    W = debiasing(rows @ rows.T, Signal(jnp.asarray(1.0), jnp.asarray([1 - noise_share])))
    same_f, corrected = W @ rows
    np.testing.assert_allclose(same_f, f)
    assert corrected @ f == pytest.approx(b @ f)
    assert corrected @ b == pytest.approx((1 - noise_share) * (b @ b))
    np.testing.assert_allclose(debiasing(rows @ rows.T, Signal.full(1)) @ rows, rows, atol=1e-12)
    # All of it noise: what is left is what the step along f does to it.
    alone = (debiasing(rows @ rows.T, Signal(jnp.asarray(1.0), jnp.zeros(1))) @ rows)[1]
    np.testing.assert_allclose(alone, (b @ f) / (f @ f) * f, atol=1e-12)


def test_a_repair_by_a_noisy_gradient_is_as_long_as_it_must_be(x64):
    """b known, b̂ seen: along x = −(c/ŝ)H⁻¹b̂ the cost falls by c·s/ŝ on average, with b̃ in its place by c. H = I."""
    rng, n, count, c = np.random.default_rng(1), 40, 12, 1.0
    b = rng.normal(size=n) / np.sqrt(n)
    x = b + np.sqrt(count / n) * rng.normal(size=(4000, count, n))  # as much noise as signal, in the mean
    mean, d = x.mean(axis=1), np.einsum("kci,hc->khi", x, np.asarray(contrasts(count))) / count

    def repaired(b_hat, noise):
        f = jnp.zeros(n).at[0].set(1e-9)
        rows = jnp.stack([f, b_hat])
        signal = Signal(jnp.asarray(1.0), measured(jnp.ones(2) * (b_hat @ b_hat), jnp.ones((1, 2)) * noise).cost)
        corrected = (debiasing(rows @ rows.T, signal) @ rows)[1]
        return -c / (b_hat @ b_hat) * (b_hat @ b), -c / (corrected @ corrected) * (corrected @ b)

    plain, corrected = jax.vmap(repaired)(jnp.asarray(mean), jnp.asarray((d**2).sum(axis=2).mean(axis=1)))
    assert float(jnp.mean(plain)) == pytest.approx(-0.5 * c, abs=0.03)
    assert float(jnp.median(corrected)) == pytest.approx(-c, abs=0.1)


T, B = 40, 40


def episodes(key, signal: float) -> Trajectory:
    """Random states; the reward is 1 and the cost 0.3 a step, plus `signal` times the action and its opposite."""
    keys = jax.random.split(key, 2)
    obs = jax.random.normal(keys[0], (T + 1, B, POLICY.observation_size))
    pi = POLICY(initial(), obs[:-1])
    action = pi.mean + jnp.exp(pi.log_std) * jax.random.normal(keys[1], pi.mean.shape)
    push = signal * (action - pi.mean)[..., 0]
    return Trajectory(
        obs=obs[:-1],
        action=action,
        log_prob=pi.log_prob(action),
        reward=1.0 + push,
        cost=(0.3 + push)[..., None],
        valid=jnp.ones((T, B)),
        terminated=jnp.zeros(B, bool),
        final_obs=obs[-1],
        nonfinite=jnp.zeros(()),
        position=jnp.zeros((T, B, 2)),
    )


@pytest.fixture(scope="module")
def updated():
    """(signal, limit) ↦ the stats of updates on 24 batches."""
    rule = dataclasses.replace(
        CPO["kl"], region=dataclasses.replace(CPO["kl"].region, damping=0.1, objective_kl_fraction=0.5)
    )
    settings = EstimationSettings(cost_gamma=0.99, confidence=0.5)

    @quick_jit
    def run(signal, limit, known, keys):
        def one(key):
            batch, _ = make_batch(episodes(key, signal), Normaliser.init(3), limit[None], settings)
            batch = eqx.tree_at(lambda D: D.contrast, batch, known * batch.contrast)
            return update(POLICY, initial(), InnerState.init(1), batch, rule)[2]

        return jax.vmap(one)(keys)

    keys = jax.random.split(jax.random.key(0), 24)
    return lambda signal, limit, known=1.0: run(jnp.float32(signal), jnp.float32(limit), jnp.float32(known), keys)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20.0, 11.0])  # within (12 are paid), and broken
def test_constant_signals_move_little(updated, limit):
    """Reward and cost do not depend on the action: what a critic makes of them is error, scaled up."""
    aware, blind = updated(0.0, limit), updated(0.0, limit, known=0.0)
    assert float(jnp.mean(blind.kl)) > 0.3 * 0.5 * CPO["kl"].region.max_kl  # the region's size alone decides
    assert float(jnp.mean(aware.kl)) < 0.35 * float(jnp.mean(blind.kl))
    assert not np.any(aware.nonfinite)


def test_a_clear_signal_costs_nothing(updated):
    aware, blind = updated(5.0, 30.0), updated(5.0, 30.0, known=0.0)
    assert float(jnp.mean(aware.signal.loss)) > 0.8
    assert float(jnp.mean(aware.kl)) > 0.99 * float(jnp.mean(blind.kl))
