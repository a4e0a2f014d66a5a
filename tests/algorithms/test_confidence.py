"""What `confidence` says is what happens: the share of updates that end within a limit, on tasks whose cost is known.

Every step costs its action a ~ N(μ, σ²) and earns it too: J_C = μT, and a step for the reward is bound by the limit
alone. After an update the true cost is that of its own μ, in closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import PolicyUpdate, update
from metacpo.algorithms.trust_region import TrustRegionSettings
from metacpo.estimation import EstimationSettings, make_batch
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import Trajectory
from metacpo.solver import Case

from .problems import quick_jit

POLICY = GaussianPolicy(observation_size=1, action_size=1, hidden=(), initial_std=0.5)
SIGMA, LIMIT, BATCHES = 0.5, 0.3, 400
RULE = PolicyUpdate(region=TrustRegionSettings(max_kl=0.2, damping=1e-3, fisher_stride=1))


def episodes(phi, key, T, B) -> Trajectory:
    obs = jnp.zeros((T, B, 1))
    pi = POLICY(phi, obs)
    action = pi.mean + jnp.exp(pi.log_std) * jax.random.normal(key, pi.mean.shape)
    return Trajectory(
        obs=obs,
        action=action,
        log_prob=pi.log_prob(action),
        reward=action[..., 0],
        cost=action,
        valid=jnp.ones((T, B)),
        terminated=jnp.ones(B, bool),
        final_obs=obs[-1],
        nonfinite=jnp.zeros(()),
        position=jnp.zeros((T, B, 2)),
    )


def after_updates(confidence, T, B, start):
    """μ after one update from each of many independent batches, and the case of each."""
    phi = jnp.array([0.0, start, np.log(SIGMA)], jnp.float32)
    settings = EstimationSettings(gamma=1.0, lam=1.0, cost_gamma=1.0, cost_lam=0.0, confidence=confidence)

    def one(key):
        batch, _ = make_batch(episodes(phi, key, T, B), Normaliser.init(1), jnp.array([LIMIT * T]), settings)
        new, _, stats = update(POLICY, phi, InnerState.init(1), batch, RULE)
        return new[1], stats.case

    mean, case = quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), BATCHES))
    return np.asarray(mean), np.asarray(case)


@pytest.mark.parametrize(("T", "B"), [pytest.param(1, 60, marks=pytest.mark.slow), (12, 20)])
# From within the limit, and from beyond it.
@pytest.mark.parametrize("start", [pytest.param(0.25, marks=pytest.mark.slow), 0.38])
@pytest.mark.parametrize("confidence", [0.5, pytest.param(0.8, marks=pytest.mark.slow), 0.95])
def test_the_share_of_updates_within_the_limit_is_the_confidence(T, B, start, confidence):
    mean, case = after_updates(confidence, T, B, start)
    bound = (case == Case.BINDING) | (case == Case.RECOVERING)
    share = float(np.mean(mean <= LIMIT))
    assert np.mean(bound) > 0.95
    # Binomial chance is 0.025 at most; the rest is b's own noise, which the margin does not count.
    assert confidence - 0.1 <= share <= min(confidence + 0.17, 0.99)
    if confidence == 0.95:
        assert share >= 0.9
