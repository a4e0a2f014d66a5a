"""The Gaussian policy against scipy, numpy and dense autodiff."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from metacpo.policies import Gaussian, GaussianPolicy

POLICY = GaussianPolicy(observation_size=3, action_size=2, hidden=(3,), initial_std=0.6)


@pytest.mark.parametrize("of_every_state", [False, True])
def test_log_prob_is_scipys(of_every_state):
    rng = np.random.default_rng(0)
    mean, action, log_std = rng.normal(size=(7, 5, 2)), rng.normal(size=(7, 5, 2)), np.array([-1.2, 0.4])
    log_std = log_std + rng.normal(size=(7, 5, 2)) if of_every_state else log_std
    pi = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_std, jnp.float32))
    expected = stats.norm.logpdf(action, mean, np.exp(log_std)).sum(-1)
    np.testing.assert_allclose(pi.log_prob(jnp.asarray(action, jnp.float32)), expected, rtol=1e-4)


def test_kl_is_the_integral_of_its_definition(x64):
    """KL(p ‖ q) = ∫ p log(p/q), in this order of arguments; independent actions add up."""
    p, q = stats.norm([0.3, -1.0], [0.5, 2.0]), stats.norm([-0.2, 0.1], [1.5, 1.1])
    expected = 0.0
    for j in range(2):

        def integrand(a, j=j):
            log_p, log_q = p.logpdf(a)[j], q.logpdf(a)[j]
            return np.exp(log_p) * (log_p - log_q)

        expected += integrate.quad(integrand, -25, 25, points=[0.3, -1.0], limit=200)[0]

    def gaussian(d):
        return Gaussian(jnp.asarray(d.mean()), jnp.log(jnp.asarray(d.std())))

    assert float(gaussian(p).kl(gaussian(q))) == pytest.approx(expected, rel=1e-6)
    assert float(gaussian(q).kl(gaussian(p))) != pytest.approx(expected, rel=0.1)
    assert float(gaussian(p).kl(gaussian(p))) == 0


def test_kl_of_standard_deviations_that_states_have(x64):
    """The same integral at each of three states."""
    rng = np.random.default_rng(1)
    means, stds = rng.normal(size=(2, 3, 1)), np.exp(rng.normal(size=(2, 3, 1)))
    p, q = (Gaussian(jnp.asarray(mean), jnp.log(jnp.asarray(std))) for mean, std in zip(means, stds, strict=True))
    for state, found in enumerate(np.asarray(p.kl(q))):
        a, b = (stats.norm(mean[state, 0], std[state, 0]) for mean, std in zip(means, stds, strict=True))

        def integrand(x, a=a, b=b):
            return a.pdf(x) * (a.logpdf(x) - b.logpdf(x))

        ends = a.mean() - 12 * a.std(), a.mean() + 12 * a.std()
        assert found == pytest.approx(integrate.quad(integrand, *ends, limit=200)[0], rel=1e-6)


def test_a_sample_is_mean_and_deviation():
    """The action at which standard normal noise has its probability: log π(sample) = log N(noise) − log σ."""
    noise = jnp.array([[0.3, -1.1], [2.0, 0.0]])
    pi = Gaussian(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[-1.0, 0.5], [0.2, 0.0]]))
    expected = (stats.norm.logpdf(noise) - np.asarray(pi.log_std)).sum(-1)
    np.testing.assert_allclose(pi.log_prob(pi.sample(noise)), expected, rtol=1e-5)
    np.testing.assert_array_equal(pi.sample(jnp.zeros_like(noise)), pi.mean)


def test_a_constant_deviation_is_no_parameter(x64):
    """The mean network alone: its φ is the other's without the end, and so are its Fisher matrix and its actions."""
    constant = GaussianPolicy(3, 2, hidden=(3,), initial_std=0.6, learn_std=False)
    assert constant.size == POLICY.size - 2 and constant != POLICY
    phi, z, weight = fisher_problem()
    phi = phi.at[-2:].set(np.log(0.6))
    ours, theirs = constant(phi[:-2], z), POLICY(phi, z)
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    np.testing.assert_allclose(ours.std, np.full(2, 0.6), rtol=1e-12)
    np.testing.assert_array_equal(constant.init(jax.random.key(0)), POLICY.init(jax.random.key(0))[:-2])
    found = jax.vmap(constant.fisher(phi[:-2], z, weight, 0.1).mv)(jnp.eye(constant.size))
    np.testing.assert_allclose(found, matrix(phi, z, weight, 0.1)[:-2, :-2], atol=1e-12)


def fisher_problem():
    """(φ, z [N, 3], weight [N]) in float64; the weights are neither equal nor normalised, one is zero."""
    phi = POLICY.init(jax.random.key(1)) + 0.3 * jax.random.normal(jax.random.key(2), (POLICY.size,))
    z = jax.random.normal(jax.random.key(3), (11, 3))
    weight = jax.random.uniform(jax.random.key(4), (11,), minval=0.5, maxval=3.0)
    return phi, z, weight.at[5].set(0.0)


@partial(jax.jit, static_argnums=3)
def matrix(phi, z, weight, damping):
    """The Fisher operator, column by column."""
    operator = POLICY.fisher(phi, z, weight, damping)
    return jax.vmap(operator.mv)(jnp.eye(operator.in_size()))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_fisher_is_the_hessian_of_the_mean_kl(x64, scale):
    phi, z, weight = fisher_problem()
    weight = scale * weight

    def mean_kl(other):
        return jnp.average(POLICY(phi, z).kl(POLICY(other, z)), weights=weight)

    expected = jax.jit(jax.hessian(mean_kl))(phi)
    assert expected.shape == (POLICY.size, POLICY.size)
    np.testing.assert_allclose(matrix(phi, z, weight, 0.0), expected, atol=1e-12)
    damped = matrix(phi, z, weight, 0.07)
    np.testing.assert_allclose(damped, expected + 0.07 * jnp.eye(POLICY.size), atol=1e-12)


def test_fisher_leaves_states_of_weight_zero_out(x64):
    phi, z, weight = fisher_problem()
    elsewhere = z.at[5].set(100.0)
    H = matrix(phi, z, weight, 0.1)
    np.testing.assert_array_equal(matrix(phi, elsewhere, weight, 0.1), H)
    counted = matrix(phi, elsewhere, weight.at[5].set(1.0), 0.1)
    assert np.max(np.abs(counted - H)) > 1e-2


def test_fisher_of_two_dimensional_batches(x64):
    """States [T, B, O] mean the same as [T·B, O]."""
    phi, z, weight = fisher_problem()
    z, weight = z[:10], weight[:10]
    folded = matrix(phi, z.reshape(5, 2, 3), weight.reshape(5, 2), 0.1)
    np.testing.assert_allclose(folded, matrix(phi, z, weight, 0.1), atol=1e-14)


def test_layout_of_phi_by_hand():
    """[W1 row by row, b1, W2, b2, log σ] for 2 observations, 2 hidden units, 1 action."""
    policy = GaussianPolicy(observation_size=2, action_size=1, hidden=(2,), initial_std=1.0)
    assert policy.size == 10
    phi = jnp.array([1.0, 2.0, 3.0, 4.0, 0.5, -0.5, 2.0, -1.0, 0.25, -1.5])
    z = jnp.array([0.1, -0.2])
    hidden = np.tanh([0.1 * 1 - 0.2 * 3 + 0.5, 0.1 * 2 - 0.2 * 4 - 0.5])
    pi = policy(phi, z)
    np.testing.assert_allclose(pi.mean, [2 * hidden[0] - hidden[1] + 0.25], rtol=1e-6)
    np.testing.assert_array_equal(pi.log_std, [-1.5])


def test_size_counts_every_parameter():
    assert POLICY.size == (3 * 3 + 3) + (3 * 2 + 2) + 2
    assert POLICY.init(jax.random.key(0)).shape == (POLICY.size,)
    linear = GaussianPolicy(observation_size=3, action_size=2, hidden=(), initial_std=1.0)
    assert linear.init(jax.random.key(0)).shape == (linear.size,) == (3 * 2 + 2 + 2,)


def test_initial_policy():
    """Nearly unbiased actions with the asked-for spread, zero biases, weights of variance 1/fan-in."""
    policy = GaussianPolicy(observation_size=50, action_size=40, hidden=(60,), initial_std=0.6)
    phi = np.asarray(policy.init(jax.random.key(0)))
    ends = np.cumsum([50 * 60, 60, 60 * 40, 40, 40])
    weight, bias, last, last_bias, log_std = np.split(phi, ends[:-1])
    assert weight.std() == pytest.approx(1 / np.sqrt(50), rel=0.05)
    assert last.std() == pytest.approx(0.1 / np.sqrt(60), rel=0.05)
    assert np.all(bias == 0) and np.all(last_bias == 0)
    np.testing.assert_allclose(log_std, np.log(0.6), rtol=1e-6)
    assert not np.array_equal(phi, policy.init(jax.random.key(1)))


def test_the_first_parameters_stay_what_they_were():
    """Bit for bit, layer by layer: runs of an earlier version begin at the same φ."""
    key, draw = jax.random.key(7), jax.nn.initializers.lecun_normal()
    first = draw(jax.random.fold_in(key, 0), (3, 3), jnp.float32)
    last = 0.1 * draw(jax.random.fold_in(key, 1), (3, 2), jnp.float32)
    log_std = np.full(2, np.log(0.6), np.float32)
    expected = np.concatenate([np.ravel(first), np.zeros(3), np.ravel(last), np.zeros(2), log_std])
    np.testing.assert_array_equal(POLICY.init(key, jnp.float32), expected)
