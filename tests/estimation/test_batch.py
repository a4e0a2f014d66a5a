"""Batches: the units of the constraint, the weights of the steps, and what the advantages predict."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation import EstimationSettings, constraint, make_batch
from metacpo.estimation.batch import episode_stats
from metacpo.policies import GaussianPolicy, Normaliser

from .episodes import trajectory

EPISODE = EstimationSettings(gamma=0.5, cost_measure="episode")
DISCOUNTED = dataclasses.replace(EPISODE, cost_measure="discounted")
RNG = np.random.default_rng(0)

# Two episodes of 4 and 2 steps. Costs 3 and 1 in sum; with γ = 1/2: 1 + 1/4 + 1/8 = 11/8 and 1/2.
VALID = np.array([[1, 1], [1, 1], [1, 0], [1, 0]])
COST = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])
HAND = trajectory(RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 2)) * VALID, COST, VALID)


@partial(jax.jit, static_argnames="settings")
def compiled(data, limit, settings):
    return make_batch(data, Normaliser.init(data.obs.shape[-1]), limit, settings)


def batch_of(data, limit, settings):
    return compiled(data, jnp.array([limit], jnp.float32), settings)


def test_statistics_by_hand():
    stats = batch_of(HAND, 1.0, EPISODE)[1]
    assert float(stats.episode_return) == pytest.approx(float(HAND.reward.sum()) / 2, rel=1e-5)
    np.testing.assert_allclose(stats.episode_cost, [2.0])
    np.testing.assert_allclose(stats.discounted_cost, [(11 / 8 + 1 / 2) / 2])
    assert float(stats.length) == 3
    seen = np.asarray(HAND.obs)[VALID > 0]
    np.testing.assert_allclose(stats.obs_mean, seen.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats.obs_var, seen.var(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("limits", "settings", "share"),
    [
        ([2.0, 9.0], EPISODE, 0.5),  # costs of the two episodes: 3 and 1, and twice that
        ([3.0, 6.0], EPISODE, 1.0),  # a limit that is met is kept
        ([3.0, 1.9], EPISODE, 0.0),  # what is unspent of one limit does not pay for the other
        ([1.0, 9.0], DISCOUNTED, 0.5),  # 11/8 and 1/2
        ([1.4, 9.0], DISCOUNTED, 1.0),
    ],
)
def test_an_episode_is_within_when_every_cost_is(limits, settings, share):
    two = dataclasses.replace(HAND, cost=jnp.concatenate([HAND.cost, 2 * HAND.cost], axis=-1))
    assert float(episode_stats(two, jnp.asarray(limits), settings).episodes_within) == share


def test_an_episode_without_a_valid_step_is_not_within():
    valid = np.array([[1, 0], [1, 0]])
    broken = trajectory(np.zeros((2, 2, 3)), np.zeros((2, 2)), np.zeros((2, 2)), valid)
    assert float(episode_stats(broken, jnp.ones(1), EPISODE).episodes_within) == 0.5


def test_c_of_the_episode_measure_is_the_excess_per_step():
    np.testing.assert_allclose(batch_of(HAND, 0.5, EPISODE)[0].c, [(2 - 0.5) / 3], rtol=1e-6)
    np.testing.assert_allclose(batch_of(HAND, 5.0, EPISODE)[0].c, [(2 - 5) / 3], rtol=1e-6)


def test_c_of_the_discounted_measure_is_the_excess_per_discounted_step():
    """Σγᵗ over the steps of the two episodes: 15/8 and 3/2."""
    length = (15 / 8 + 3 / 2) / 2
    batch, stats = batch_of(HAND, 0.5, DISCOUNTED)
    np.testing.assert_allclose(stats.discounted_length, length, rtol=1e-6)
    np.testing.assert_allclose(batch.c, [(15 / 16 - 0.5) / length], rtol=1e-6)


@pytest.mark.slow
def test_reward_and_cost_have_the_critic_named_for_them():
    """Another cost critic changes the cost's advantage and leaves the reward's, and the other way round."""
    rng = np.random.default_rng(1)
    data = trajectory(rng.normal(size=(40, 20, 3)), *rng.normal(size=(2, 40, 20)))

    both = batch_of(data, 1.0, EPISODE)[0]
    for name, changed, kept in (
        ("cost_critic", "cost_advantage", "reward_advantage"),
        ("critic", "reward_advantage", "cost_advantage"),
    ):
        other = batch_of(data, 1.0, dataclasses.replace(EPISODE, **{name: "network"}))[0]
        np.testing.assert_allclose(getattr(other, kept), getattr(both, kept), atol=1e-3 * getattr(both, kept).std())
        assert np.abs(getattr(other, changed) - getattr(both, changed)).max() > 1e-2


def test_the_margin_is_the_quantile_of_students_distribution_in_standard_errors():
    """Costs 3 and 1: of their mean 1. Discounted 11/8 and 4/8: 7/16. With one degree of freedom, t(0.75) is 1."""
    for settings, error, length in ((EPISODE, 1.0, 3.0), (DISCOUNTED, 7 / 16, (15 / 8 + 3 / 2) / 2)):
        found = {p: batch_of(HAND, 0.5, dataclasses.replace(settings, confidence=p))[0] for p in (0.5, 0.75)}
        np.testing.assert_allclose(found[0.5].margin, [0.0], atol=1e-7)
        np.testing.assert_allclose(found[0.75].margin, [error / length], rtol=1e-5)
        np.testing.assert_array_equal(found[0.75].c, found[0.5].c)


def test_an_outer_step_has_a_margin_of_its_own():
    settings = dataclasses.replace(EPISODE, confidence=0.75, outer_confidence=0.25)
    batch = batch_of(HAND, 0.5, settings)[0]
    np.testing.assert_allclose(batch.outer_margin, -batch.margin, rtol=1e-5)
    np.testing.assert_allclose(batch.margin, [1 / 3], rtol=1e-5)
    same = batch_of(HAND, 0.5, dataclasses.replace(settings, outer_confidence=None))[0]
    np.testing.assert_array_equal(same.outer_margin, same.margin)


def test_one_episode_has_no_spread_and_no_margin():
    alone = jax.tree.map(lambda x: x, trajectory(np.zeros((4, 1, 3)), np.zeros((4, 1)), np.ones((4, 1))))
    batch = batch_of(alone, 0.5, dataclasses.replace(EPISODE, confidence=0.99))[0]
    np.testing.assert_array_equal(batch.margin, [0.0])
    np.testing.assert_array_equal(batch.contrast, 0.0)


def test_a_step_is_on_the_side_of_its_episode():
    """Two episodes, one against the other; row t·B + b."""
    signs = np.asarray(batch_of(HAND, 1.0, EPISODE)[0].contrast).reshape(4, 2, -1)
    np.testing.assert_allclose(signs[:, 0], 1.0)
    np.testing.assert_allclose(signs[:, 1], -1.0)


@pytest.mark.parametrize("settings", [EPISODE, DISCOUNTED])
def test_weights_sum_to_one_over_the_valid_steps(settings):
    batch = batch_of(HAND, 1.0, settings)[0]
    np.testing.assert_allclose(batch.weight.reshape(4, 2), VALID / 6, rtol=1e-6)
    fade = VALID * (0.5 ** np.arange(4)[:, None] if settings is DISCOUNTED else 1.0)
    np.testing.assert_allclose(batch.cost_weight.reshape(4, 2), fade / fade.sum(), rtol=1e-6)


@pytest.mark.parametrize("settings", [EPISODE, DISCOUNTED])
def test_advantages_are_centred_under_their_own_weights(settings):
    T, B = 40, 6
    obs, reward, cost = RNG.normal(size=(T, B, 3)), RNG.normal(size=(T, B)), RNG.random((T, B))
    batch = batch_of(trajectory(obs, reward, cost), 1.0, dataclasses.replace(settings, gamma=0.9))[0]
    assert float(jnp.sum(batch.weight * batch.reward_advantage)) == pytest.approx(0, abs=1e-6)
    assert float(jnp.sum(batch.cost_weight * batch.cost_advantage[:, 0])) == pytest.approx(0, abs=1e-6)
    assert float(jnp.std(batch.reward_advantage)) > 0.3 and float(jnp.std(batch.cost_advantage)) > 0.1


def test_cost_advantages_keep_the_unit_of_the_cost():
    T, B = 40, 6
    obs, reward, cost = RNG.normal(size=(T, B, 3)), RNG.normal(size=(T, B)), RNG.random((T, B))
    one, seven = (batch_of(trajectory(obs, reward, s * cost), s, EPISODE)[0] for s in (1.0, 7.0))
    np.testing.assert_allclose(seven.cost_advantage, 7 * one.cost_advantage, atol=7e-3 * one.cost_advantage.std())
    np.testing.assert_allclose(seven.c, 7 * one.c, rtol=1e-5)


def test_steps_stay_in_their_row():
    """Step t of episode b is row t·B + b of everything."""
    batch = batch_of(HAND, 1.0, EPISODE)[0]
    np.testing.assert_allclose(batch.z.reshape(4, 2, 3), HAND.obs, rtol=1e-6)
    normaliser = Normaliser.init(3).update(jnp.float32(5), jnp.full(3, 1.0), jnp.full(3, 4.0))
    batch = jax.jit(lambda d: make_batch(d, normaliser, jnp.array([1.0]), EPISODE))(HAND)[0]
    np.testing.assert_allclose(batch.z.reshape(4, 2, 3), (HAND.obs - 1) / 2, rtol=1e-5)


@pytest.mark.parametrize(("measure", "gamma", "lam"), [("episode", 1.0, 0.0), ("discounted", 0.9, 0.5)])
def test_the_change_of_c_predicts_the_change_of_the_cost(measure, gamma, lam):
    """A bandit played T times: each step costs its action, so that a mean action higher by ε costs ε a step.

    c is per step: the change of the episode's cost is T̄ times that of c, the change of the discounted cost Σγᵗ
    times.
    """
    policy = GaussianPolicy(observation_size=1, action_size=1, hidden=(), initial_std=0.5)
    phi = jnp.array([0.0, 0.3, np.log(0.5)], jnp.float32)  # weight, bias, log σ
    T, B, epsilon = 60, 500, 1e-2
    action = 0.3 + 0.5 * RNG.normal(size=(T, B, 1))
    obs = np.zeros((T, B, 1))
    pi = policy(phi, jnp.asarray(obs, jnp.float32))
    log_prob = pi.log_prob(jnp.asarray(action, jnp.float32))
    data = trajectory(obs, np.zeros((T, B)), action[..., 0], action=action, log_prob=log_prob)
    settings = EstimationSettings(gamma=0.9, cost_measure=measure, cost_gamma=gamma, cost_lam=lam)
    batch, stats = batch_of(data, 1.0, settings)
    there = phi + jnp.array([0.0, epsilon, 0.0])
    change = float((constraint(policy, there, batch) - constraint(policy, phi, batch))[0])
    if measure == "episode":
        assert float(stats.length) * change == pytest.approx(T * epsilon, rel=0.05)
    else:
        expected = epsilon * np.sum(0.9 ** np.arange(T))
        assert float(stats.discounted_length) * change == pytest.approx(expected, rel=0.05)
