"""The surrogates L_R and c: values by hand, first and second derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.estimation import Batch, constraint, kl, surrogates
from metacpo.policies import GaussianPolicy

POLICY = GaussianPolicy(observation_size=2, action_size=2, hidden=(3,), initial_std=0.8)
N = 30


@jax.jit
def random_data(key):
    """(φ of the data, batch, another φ)."""
    keys = jax.random.split(key, 7)
    phi = POLICY.init(keys[0]) + 0.2
    z = jax.random.normal(keys[1], (N, 2))
    pi = POLICY(phi, z)
    action = pi.mean + jnp.exp(pi.log_std) * jax.random.normal(keys[2], (N, 2))
    weight, cost_weight = jax.random.uniform(keys[3], (2, N))
    batch = Batch(
        z=z,
        action=action,
        log_prob=pi.log_prob(action),
        reward_advantage=jax.random.normal(keys[4], (N,)),
        cost_advantage=jax.random.normal(keys[5], (N, 1)),
        weight=weight / jnp.sum(weight),
        cost_weight=cost_weight / jnp.sum(cost_weight),
        contrast=jnp.zeros((N, 1)),
        margin=jnp.zeros(1),
        outer_margin=jnp.zeros(1),
        c=jnp.array([0.25]),
    )
    return phi, batch, phi + 0.1 * jax.random.normal(keys[6], phi.shape)


@pytest.fixture(scope="module")
def data():
    with jax.enable_x64(True):
        return random_data(jax.random.key(0))


def loss(phi, batch):
    return surrogates(POLICY, phi, batch)[0]


def test_values_at_the_data(x64, data):
    phi, batch, _ = data
    L_R, c = surrogates(POLICY, phi, batch)
    assert float(L_R) == pytest.approx(-float(batch.weight @ batch.reward_advantage), rel=1e-12)
    np.testing.assert_allclose(c, [0.25], rtol=1e-12)


def test_values_elsewhere_by_numpy(x64, data):
    _, batch, there = data
    batch = jax.tree.map(np.asarray, batch)
    pi = POLICY(there, jnp.asarray(batch.z))
    mean = np.asarray(pi.mean)
    sigma = np.exp(np.asarray(pi.log_std))
    density = np.prod(np.exp(-0.5 * ((batch.action - mean) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma), axis=1)
    ratio = density / np.exp(batch.log_prob)
    L_R, c = surrogates(POLICY, there, data[1])
    assert float(L_R) == pytest.approx(-np.sum(batch.weight * ratio * batch.reward_advantage), rel=1e-10)
    L_C = np.sum(batch.cost_weight * ratio * batch.cost_advantage[:, 0])
    L_C_data = np.sum(batch.cost_weight * batch.cost_advantage[:, 0])
    np.testing.assert_allclose(c, [0.25 + L_C - L_C_data], rtol=1e-10)
    np.testing.assert_array_equal(constraint(POLICY, there, data[1]), c)


def test_m_constraints(x64, data):
    _, batch, there = data
    two = eqx.tree_at(
        lambda b: (b.cost_advantage, b.c),
        batch,
        (batch.cost_advantage * jnp.array([1.0, -2.0]), jnp.array([0.25, 1.0])),
    )
    change = constraint(POLICY, there, batch)[0] - 0.25
    np.testing.assert_allclose(constraint(POLICY, there, two), [0.25 + change, 1 - 2 * change], rtol=1e-10)
    none = eqx.tree_at(lambda b: (b.cost_advantage, b.c), batch, (batch.cost_advantage[:, :0], batch.c[:0]))
    assert constraint(POLICY, there, none).shape == (0,)


@pytest.mark.parametrize("at_data", [True, False])
def test_gradients_equal_finite_differences(x64, data, at_data):
    phi, batch, there = data
    phi = phi if at_data else there

    @jax.jit
    def both(p):
        L_R, c = surrogates(POLICY, p, batch)
        return jnp.append(L_R, c)

    width = 1e-5
    steps = width * jnp.eye(phi.size)
    differences = (jax.vmap(both)(phi + steps) - jax.vmap(both)(phi - steps)) / (2 * width)
    np.testing.assert_allclose(jax.jacrev(both)(phi), differences.T, atol=1e-8)
    assert np.all(np.max(np.abs(differences), axis=0) > 0.05)


def test_the_gradient_at_the_data_is_the_policy_gradient(x64, data):
    phi, batch, _ = data

    def log_prob_surrogate(p):
        return -jnp.sum(batch.weight * POLICY(p, batch.z).log_prob(batch.action) * batch.reward_advantage)

    np.testing.assert_allclose(jax.grad(loss)(phi, batch), jax.grad(log_prob_surrogate)(phi), atol=1e-12)


def test_the_second_derivative_keeps_the_score_term(x64, data):
    """∇²L_R = −Σ w Â (∇²log π + ∇log π ∇log πᵀ): a log-probability surrogate has the first term only."""
    phi, batch, _ = data

    def log_prob(p):
        return POLICY(p, batch.z).log_prob(batch.action)

    @jax.jit
    def hessians(p):
        weights = -batch.weight * batch.reward_advantage
        first = jax.hessian(lambda q: weights @ log_prob(q))(p)
        score = jax.jacrev(log_prob)(p)
        return jax.hessian(loss)(p, batch), first, jnp.einsum("i,ij,ik->jk", weights, score, score)

    ratio_hessian, log_prob_hessian, score_term = hessians(phi)
    np.testing.assert_allclose(ratio_hessian, log_prob_hessian + score_term, atol=1e-11)
    assert np.linalg.norm(ratio_hessian - log_prob_hessian) > 0.1 * np.linalg.norm(ratio_hessian)


def test_kl_is_the_mean_over_states_weighted_like_the_surrogates(x64, data):
    phi, batch, there = data
    each = POLICY(phi, batch.z).kl(POLICY(there, batch.z))
    mean = 0.5 * (np.average(each, weights=batch.weight) + np.average(each, weights=batch.cost_weight))
    assert not np.allclose(batch.weight, batch.cost_weight)
    assert float(kl(POLICY, phi, there, batch)) == pytest.approx(mean)
    assert float(kl(POLICY, there, phi, batch)) != pytest.approx(mean)
    assert float(kl(POLICY, phi, phi, batch)) == 0
