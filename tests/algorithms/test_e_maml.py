"""E-MAML's extra term, where every expectation is a finite sum: a choice between two actions, seen N times.

n of the N actions of a task's data are the first one, with binomial probability. Enumerating n gives the true gradient
of the expected value after one update; what an unbiased estimator gives on average must be exactly that.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from metacpo.algorithms.acceptance import StepStats
from metacpo.algorithms.inner_loop import InnerLoop
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.meta_gradients import META_GRADIENTS
from metacpo.algorithms.meta_objective import MetaObjective
from metacpo.algorithms.policy_update import PolicyUpdate, update
from metacpo.algorithms.steps import GradientStep
from metacpo.estimation import Batch
from metacpo.estimation.batch import EpisodeStats

from .exact import Table, quick_jit

N, TASKS = 4, 2
POLICY = Table(1, 2, (), 1.0)
RULE = PolicyUpdate(step=GradientStep(3.0))
THETA = np.array([0.2, -0.3])


def seen(theta, n) -> Batch:
    """n times the first action, which pays 1, and N − n times the other; costs 0.7 for the first."""
    first = (jnp.arange(float(N)) < n).astype(float)
    action = jnp.stack([first, 1 - first], axis=1)
    z, weight = jnp.ones((N, 1)), jnp.full(N, 1 / N)
    log_prob = POLICY(theta, z).log_prob(action)
    advantage, cost_advantage = first - 0.3, 0.7 * first[:, None] - 0.2
    none = jnp.zeros_like(weight)[:, None]  # of its halves nothing is asked
    return Batch(
        z,
        action,
        log_prob,
        advantage,
        cost_advantage,
        weight,
        weight,
        none,
        jnp.array([0.1]),
        jnp.zeros(1),
        jnp.zeros(1),
    )


def exact(phi) -> tuple[Batch, jax.Array]:
    """Both actions, weighted by their probability; and the value of φ."""
    p = jax.nn.softmax(phi)
    eye, z = jnp.eye(2), jnp.ones((2, 1))
    advantage = eye[0] - p[0]
    c, none = 0.7 * p[:1] - 0.3, jnp.zeros_like(p)[:, None]
    batch = Batch(z, eye, jnp.log(p), advantage, 0.7 * advantage[:, None], p, p, none, c, jnp.zeros(1), jnp.zeros(1))
    return batch, p[0]


def walk_of(theta, counts) -> InnerLoop:
    """The loop of all tasks whose data have these counts; its last data are exact."""
    phi0 = jnp.broadcast_to(theta, (TASKS, 2))
    first = jax.vmap(seen)(phi0, counts)
    phi, _, updates = jax.vmap(lambda p, D: update(POLICY, p, InnerState.init(1), D, RULE))(phi0, first)
    last, value = jax.vmap(exact)(phi)
    values = jnp.stack([jnp.zeros(TASKS), value])
    zero = jnp.zeros((2, TASKS))
    stats = EpisodeStats(
        values, zero[..., None], zero[..., None], zero, zero + 1, zero + 1, zero, zero, zero[..., None], zero[..., None]
    )
    once = jax.tree.map(lambda x: x[None], (first, updates))
    assert isinstance(once[1], StepStats)
    return InnerLoop(*once, stats, phi, last)


def expected_value(theta):
    """Σ_n P(n; θ) J(φ¹(θ, n)), and of the cost: what one update of data of θ reaches on average."""
    n = jnp.arange(N + 1.0)
    p = jax.nn.softmax(theta)[0]
    choose = jnp.asarray([1.0, 4.0, 6.0, 4.0, 1.0])
    weights = choose * p**n * (1 - p) ** (N - n)

    def reached(count):
        phi = update(POLICY, theta, InnerState.init(1), seen(jax.lax.stop_gradient(theta), count), RULE)[0]
        return jax.nn.softmax(phi)[0]

    J = weights @ jax.vmap(reached)(n)
    return jnp.stack([-J, 0.7 * J])


@pytest.fixture(scope="module")
def average():
    """estimator ↦ its mean over all data [F and G, n], weighted by their probability."""

    def gradient(estimator):
        objective = MetaObjective(POLICY, RULE, META_GRADIENTS[estimator])
        theta, start = jnp.asarray(THETA), InnerState.init(1)

        def rows(counts):
            g, b, _ = objective.linearise(theta, theta, start, walk_of(theta, counts))
            return jnp.stack([g, b[0]])

        counts = np.stack(np.meshgrid(*[np.arange(N + 1)] * TASKS), axis=-1).reshape(-1, TASKS)
        p = float(jax.nn.softmax(theta)[0])
        weights = binom.pmf(counts, N, p).prod(axis=1)
        return np.einsum("d,dfn->fn", weights, np.asarray(quick_jit(jax.vmap(rows))(jnp.asarray(counts, float))))

    with jax.enable_x64(True):
        yield gradient


@pytest.fixture(scope="module")
def truth():
    """By central differences of the enumerated expectation."""
    with jax.enable_x64(True):
        value, h = quick_jit(expected_value), 1e-5
        shifts = h * np.eye(2)
        return np.stack([(value(THETA + d) - value(THETA - d)) / (2 * h) for d in shifts], axis=1)


@pytest.mark.slow
def test_with_the_score_the_meta_gradient_is_unbiased(x64, average, truth):
    np.testing.assert_allclose(average("e_maml"), truth, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_without_it_there_is_a_bias(x64, average, truth):
    """Ratios count how θ draws the data to first order in an action's probability; first-order MAML not at all."""
    bias = {name: np.linalg.norm(average(name) - truth) / np.linalg.norm(truth) for name in ("exact", "first_order")}
    assert 0.01 < bias["exact"] < 0.1 and bias["first_order"] > 3 * bias["exact"]
