"""One constrained update: its linearisation, its line search, and what it does with bad numbers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.acceptance import Proposed, accept
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.objectives import Weights
from metacpo.algorithms.policy_update import BACKTRACK_RATIO, PolicyUpdate, compute_step, update
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.steps import Proposal
from metacpo.algorithms.trust_region import linearise, trust_region
from metacpo.estimation import kl, surrogates
from metacpo.solver import Case

from .problems import CPO, EXACT, POLICY, batch_in_case, initial, quick_jit, random_batch

DELTA = 0.01


def plain(phi, batch):
    """(g, b, c) without a rule of its own for the derivative."""
    g = jax.grad(lambda p: surrogates(POLICY, p, batch)[0])(phi)
    b = jax.jacrev(lambda p: surrogates(POLICY, p, batch)[1])(phi)
    return g, b, surrogates(POLICY, phi, batch)[1]


@pytest.mark.parametrize("m", [*(pytest.param(m, marks=pytest.mark.slow) for m in (0, 1)), 2])
def test_linearisation_and_its_derivative_are_those_of_autodiff(x64, m):
    """For three problems under vmap, away from the data's own φ, and for each cotangent alone."""

    @quick_jit
    def run(key):
        keys = jax.random.split(key, 3)
        theta = initial()
        batch = jax.vmap(lambda k: random_batch(theta, k, m))(keys)
        phi = theta + 0.1 * jax.vmap(lambda k: jax.random.normal(k, theta.shape))(keys)
        ours, pull = jax.vjp(jax.vmap(lambda p, D: linearise(POLICY, p, D)), phi, batch)
        expected, pull_plain = jax.vjp(lambda p: jax.vmap(plain)(p, batch), phi)
        cotangents = tuple(jax.random.normal(key, x.shape) for x in ours)
        each = [jnp.arange(4)[:, None] == i for i in range(3)]  # one cotangent at a time, then all of them
        each = [(on | (jnp.arange(4) == 3)[:, None]).astype(theta.dtype) for on in each]
        stacked = tuple(jnp.reshape(on, (4,) + (1,) * v.ndim) * v for on, v in zip(each, cotangents, strict=True))
        pulled = jax.vmap(lambda v: (pull(v)[0], pull_plain(v)[0]))(stacked)
        return ours, expected, pulled

    ours, expected, pulled = run(jax.random.key(1))
    assert ours[1].shape == (3, m, POLICY.size) and ours[2].shape == (3, m)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    np.testing.assert_allclose(*pulled, rtol=1e-9, atol=1e-12)
    sizes = np.max(np.abs(pulled[1]), axis=(1, 2))
    assert sizes[0] > 1e-3 and all((size > 1e-3) == (m > 0) for size in sizes[1:3])


def proposed(case, m=1, violation_weight=1.0):
    """A step of this case, of which only its word matters."""
    step = Proposal(jnp.zeros(2), jnp.int32(case), jnp.float32(0), jnp.asarray(False))
    weights = Weights(jnp.float32(1), jnp.zeros(m))
    return Proposed(step, weights, jnp.float32(DELTA), Signal.full(m), jnp.full(m, violation_weight), jnp.int32(0))


@pytest.mark.parametrize(
    ("case", "loss", "c_before", "c_after", "divergence", "verdict"),
    [
        (Case.SLACK, -0.1, -1.0, -0.5, 0.009, True),
        (Case.SLACK, -0.1, -1.0, -0.5, 0.011, False),  # KL above δ
        (Case.SLACK, -0.1, -1.0, 0.01, 0.009, False),  # a held constraint is broken
        (Case.SLACK, 0.1, -1.0, -1.5, 0.009, False),  # the loss rises
        (Case.BINDING, 0.1, -1.0, -1.5, 0.009, False),
        (Case.UNCONSTRAINED, 0.1, -1.0, -1.5, 0.009, False),
        (Case.RECOVERING, 0.1, 1.0, 0.5, 0.009, True),  # a higher loss is the price of recovery
        (Case.INFEASIBLE, 0.1, 1.0, 0.5, 0.009, True),
        (Case.RECOVERING, -0.1, 1.0, 1.1, 0.009, False),  # worse than it was
        (Case.RECOVERING, -0.1, 1.0, 0.9, 0.011, False),
        (Case.INFEASIBLE, np.nan, 1.0, 0.5, 0.009, False),
        (Case.SLACK, np.nan, -1.0, -1.0, 0.009, False),
        (Case.SLACK, -np.inf, -1.0, -1.0, 0.009, False),
        (Case.SLACK, -0.1, -1.0, np.nan, 0.009, False),
        (Case.SLACK, -0.1, -1.0, -1.0, np.nan, False),
    ],
)
def test_what_the_line_search_accepts(case, loss, c_before, c_after, divergence, verdict):
    """Loss 0 before."""
    before, after = ((jnp.float32(L), jnp.array([c], jnp.float32)) for L, c in ((0, c_before), (loss, c_after)))
    assert bool(accept(proposed(case), before, after, jnp.float32(divergence), True)) is verdict


H = np.diag([1.0, 2.0, 4.0])
ROWS = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])  # s = bᵀH⁻¹b = 1, 3, 0


@pytest.mark.parametrize(
    ("rows", "c", "share"),
    [
        ([], [], 0.3),  # nothing to repair
        ([0], [-0.1], 0.3),  # within the limit, or at it: the cautious share
        ([0], [0.0], 0.3),
        ([0], [0.05], 0.3 + 0.05**2 / (2 * DELTA)),  # broken: what its repair needs comes on top
        ([1], [0.05], 0.3 + 0.05**2 / (6 * DELTA)),
        ([0], [0.5], 1.0),  # more than there is
        ([2], [0.5], 0.3),  # no step repairs it
        ([0, 1], [-1.0, 0.05], 0.3 + 0.05**2 / (6 * DELTA)),
        ([0, 1], [0.05, 0.05], 0.3 + (0.05**2 + 0.05**2 / 3) / (2 * DELTA)),  # orthogonal: both lengths
    ],
)
def test_a_step_gets_what_the_repair_needs_and_a_cautious_share(x64, rows, c, share):
    settings = dataclasses.replace(EXACT["kl"], max_kl=DELTA, objective_kl_fraction=0.3)
    b = ROWS[rows].reshape(-1, 3)
    S, m = jnp.asarray(b @ np.linalg.solve(H, b.T)), len(rows)
    size = quick_jit(lambda S, c, scale: trust_region(S, c, scale, Signal.full(m), settings))
    assert float(size(S, jnp.asarray(c, float), jnp.asarray(1.0))) == pytest.approx(share * DELTA)
    # A learned scale multiplies what the loss may spend, and leaves the repair what it needs as far as max_kl goes.
    repair = min(share - 0.3, 1 - 0.3 * 0.2) if share < 1 else 1 - 0.3 * 0.2
    expected = min(0.3 * 0.2 + repair, 1.0) * DELTA
    assert float(size(S, jnp.asarray(c, float), jnp.asarray(0.2))) == pytest.approx(expected)
    whole = dataclasses.replace(settings, objective_kl_fraction=1.0)
    assert float(trust_region(S, jnp.asarray(c, float), jnp.asarray(1.0), Signal.full(m), whole)) == DELTA


@pytest.mark.parametrize(
    ("case", "share"),
    [
        *(pytest.param(case, 0.2, marks=pytest.mark.slow) for case in (Case.SLACK, Case.BINDING)),
        (Case.RECOVERING, 0.36),
        pytest.param(Case.INFEASIBLE, 1.0, marks=pytest.mark.slow),
    ],
)
def test_an_update_stays_in_its_region(x64, case, share):
    """Recovering data need 0.4² of the whole region, infeasible ones more than there is: see batch_in_case."""
    settings = dataclasses.replace(EXACT["kl"], objective_kl_fraction=0.2)

    @quick_jit
    def run(phi, key):
        batch = batch_in_case(phi, key, jnp.asarray(int(case)), EXACT["kl"])
        return update(POLICY, phi, InnerState.init(1), batch, PolicyUpdate(region=settings))[2]

    stats = run(initial(), jax.random.key(0))
    assert float(stats.accepted) == 1
    assert float(stats.delta) == pytest.approx(share * DELTA)
    assert 0 < float(stats.kl) <= share * DELTA


def test_a_step_that_trades_one_constraint_for_another_keeps_its_word():
    """Not all can be held: what counts is the violation that the step minimises, ½Σ c²/s: .50 → .34, then back."""
    before, after = (jnp.float32(0), jnp.array([1.0, 0.05])), (jnp.float32(0.1), jnp.array([0.80, 0.19]))
    infeasible, recovering = proposed(Case.INFEASIBLE, 2), proposed(Case.RECOVERING, 2)
    assert bool(accept(infeasible, before, after, jnp.float32(0), True))
    assert not bool(accept(infeasible, after, before, jnp.float32(0), True))
    assert not bool(accept(recovering, before, after, jnp.float32(0), True))  # it predicted to hold both
    # A violation counts by its distance: of a row that is hard to move, little s, a small one weighs much.
    hard = eqx.tree_at(lambda p: p.violation_weight, infeasible, jnp.array([1.0, 100.0]))
    assert not bool(accept(hard, before, after, jnp.float32(0), True))


def test_an_infeasible_update_under_two_constraints_is_accepted(x64):
    """c far out of reach in one row and slightly broken in the other, whose gradients oppose each other."""
    rule = PolicyUpdate(region=dataclasses.replace(EXACT["kl"], damping=0.1))

    @quick_jit
    def run(phi, key):
        batch = random_batch(phi, key, 2)
        first = batch.cost_advantage[:, 0]
        opposed = jnp.stack([first, 0.5 * batch.cost_advantage[:, 1] - 0.5 * first], axis=1)
        batch = eqx.tree_at(lambda D: (D.cost_advantage, D.c), batch, (opposed, jnp.array([1.0, 1e-4])))
        new, _, stats = update(POLICY, phi, InnerState.init(2), batch, rule)
        return stats, surrogates(POLICY, new, batch)[1] - batch.c

    accepted, traded = 0, 0
    for seed in range(8):
        stats, change = run(initial(), jax.random.key(seed))
        assert float(stats.case) == Case.INFEASIBLE
        accepted += float(stats.accepted)
        traded += float(change[0] < 0 < change[1])
    assert accepted == 8 and traded >= 4


def test_every_constraint_counts():
    before = jnp.float32(0), jnp.array([-1.0, -1.0])
    one_broken = jnp.float32(-1), jnp.array([-1.0, 0.1])
    verdict = [accept(proposed(Case.SLACK, 2), before, one_broken, jnp.float32(0), limits) for limits in (True, False)]
    assert [bool(v) for v in verdict] == [False, True]  # a move without limits promises nothing of them


@pytest.fixture(scope="module")
def step():
    """(φ, case, key) ↦ the batch, the full step, the update and what it changed, in float64."""
    settings = EXACT["kl"]

    @quick_jit
    def run(phi, case, key):
        batch = batch_in_case(phi, key, case, settings)
        new, _, stats = update(POLICY, phi, InnerState.init(1), batch, CPO["kl"])
        before, after = surrogates(POLICY, phi, batch), surrogates(POLICY, new, batch)
        x = compute_step(POLICY, phi, InnerState.init(1), batch, None, CPO["kl"])[0].proposal.step
        return new - phi, x, stats, before, after, kl(POLICY, phi, new, batch)

    return run


@pytest.mark.parametrize("case", [Case.INFEASIBLE, Case.RECOVERING, Case.BINDING, Case.SLACK])
def test_an_update_does_what_it_reports(x64, step, case):
    for seed in range(5):
        moved, x, stats, before, after, divergence = step(initial(), jnp.asarray(int(case)), jax.random.key(seed))
        assert float(stats.case) == case
        assert float(stats.accepted) == 1
        np.testing.assert_allclose(moved, stats.alpha * x, atol=1e-14)
        exponent = np.log(float(stats.alpha)) / np.log(BACKTRACK_RATIO)
        assert exponent == pytest.approx(round(exponent), abs=1e-9)
        assert 1e-4 < float(divergence) <= DELTA
        assert float(stats.kl) == pytest.approx(float(divergence))
        assert float(stats.predicted_loss) == pytest.approx(float(after[0] - before[0]))
        np.testing.assert_allclose(stats.predicted_cost, after[1] - before[1])
        if case in (Case.BINDING, Case.SLACK):
            assert after[0] < before[0] and after[1] <= 0
        else:
            assert 0 < before[1] and after[1] < before[1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: eqx.tree_at(lambda b: b.reward_advantage, b, b.reward_advantage.at[3].set(jnp.nan)),
        lambda b: eqx.tree_at(lambda b: b.cost_advantage, b, b.cost_advantage.at[3].set(jnp.nan)),
        lambda b: eqx.tree_at(lambda b: b.log_prob, b, b.log_prob.at[0].set(-jnp.inf)),
        lambda b: eqx.tree_at(lambda b: b.z, b, b.z.at[5, 1].set(jnp.nan)),
        lambda b: eqx.tree_at(lambda b: b.action, b, b.action.at[5, 0].set(jnp.inf)),
        lambda b: eqx.tree_at(lambda b: b.weight, b, b.weight.at[5].set(jnp.nan)),
        lambda b: eqx.tree_at(lambda b: b.c, b, b.c * jnp.nan),
        lambda b: jax.tree.map(lambda x: x * jnp.nan, b),
    ],
    ids=["reward", "cost", "log_prob", "state", "action", "weight", "c", "everything"],
)
def test_broken_data_leave_the_policy_as_it_was(updated, spoil):
    phi, batch, run = updated
    new, stats = run(phi, spoil(batch))
    np.testing.assert_array_equal(new, phi)
    assert float(stats.case) == Case.INVALID
    assert (float(stats.kl), float(stats.predicted_loss), float(stats.predicted_cost[0])) == (0, 0, 0)


@pytest.fixture(scope="module")
def updated():
    phi = initial()
    batch = quick_jit(random_batch)(phi, jax.random.key(0))
    run = quick_jit(lambda p, D: update(POLICY, p, InnerState.init(1), D, CPO["kl"])[::2])
    new, stats = run(phi, batch)
    assert float(stats.accepted) == 1 and not np.array_equal(new, phi)
    return phi, batch, run
