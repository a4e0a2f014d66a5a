"""The meta-gradient through every inner rule, and what the outer step may hold, against finite differences."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.algorithm import Algorithm
from metacpo.algorithms.inner_state import InnerState, pack, unpack
from metacpo.algorithms.meta_crpo import RegretBound
from metacpo.algorithms.meta_gradients import FirstOrder, HessianFree
from metacpo.algorithms.meta_objective import MetaObjective
from metacpo.algorithms.meta_update import adapted_cost, meta_update
from metacpo.algorithms.objectives import CRPOSwitch, Penalty, PIDLagrangian
from metacpo.algorithms.policy_update import PolicyUpdate, update
from metacpo.algorithms.steps import GradientStep, KLPenalisedStep, NaturalGradientStep, PCPOStep, TRPOStep
from metacpo.estimation import kl, surrogates
from metacpo.solver import Case

from .problems import CPO, EXACT, POLICY, Walker, initial, inner_state, quick_jit, random_batch

WIDTH = 1e-5
EUCLIDEAN = EXACT["euclidean"]
PID = PIDLagrangian(proportional=3.0, integral=5.0, derivative=2.0)
# A penalised step has no region of its own: a price that makes it about as long as the others.
RULES = {
    "constrained": CPO["euclidean"],
    "free": PolicyUpdate(step=TRPOStep(), region=EUCLIDEAN),
    "projected": PolicyUpdate(step=PCPOStep(), region=EXACT["kl"]),
    "pid lagrangian": PolicyUpdate(PID, TRPOStep(), EUCLIDEAN),
    "constrained lagrangian": PolicyUpdate(PIDLagrangian(integral=5.0), region=EUCLIDEAN),
    "switch": PolicyUpdate(CRPOSwitch(), NaturalGradientStep(0.1), EUCLIDEAN),
    "penalty": PolicyUpdate(Penalty(2.0), GradientStep(0.1), EUCLIDEAN),
    "penalised": PolicyUpdate(
        step=KLPenalisedStep(8.0, 0.5, steps=50), region=dataclasses.replace(EUCLIDEAN, max_kl=0.3)
    ),
}
CASES = (Case.RECOVERING, Case.BINDING)
LEARNED = {"pid lagrangian": ("multiplier", "scale"), "switch": ("scale",), "constrained": ("scale",)}


def relative(error, truth):
    return np.linalg.norm(error - truth, axis=-1) / np.linalg.norm(truth, axis=-1)


def differences(function, x):
    """The Jacobian of a function to [..] at x by central differences, all in one program."""
    shifts = WIDTH * jnp.eye(x.size)
    up, down = jnp.split(jax.vmap(lambda d: function(x + d))(jnp.concatenate([shifts, -shifts])), 2)
    return ((up - down) / (2 * WIDTH)).T


QUICK = ("constrained", "switch")  # the others compile for longer and are slow tests


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in RULES if name not in QUICK)]
)
def test_the_meta_gradient_goes_through_every_rule(x64, name):
    """F, and c of every task, in θ and in the inner_state that are learned; K = 2."""
    rule, learned, theta = RULES[name], LEARNED.get(name, ()), initial()
    loop = Walker(rule, start=inner_state()).loop(theta, CASES)
    objective = MetaObjective(POLICY, rule, per_task=True, learned=learned)
    packed = pack(theta, inner_state(), learned)
    assert packed.size == theta.size + len(learned)

    @quick_jit
    def both(packed, loop):
        g, b, G = objective.linearise(packed, theta, inner_state(), loop)
        value = objective(packed, theta, inner_state(), loop)
        np_like = differences(lambda p: jnp.append(*objective(p, theta, inner_state(), loop)), packed)
        return jnp.concatenate([g[None], b]), np_like, G, value

    exact, numeric, G, (_, G_again) = both(packed, loop)
    assert exact.shape == (1 + 2, packed.size) and exact.dtype == jnp.float64
    assert np.all(relative(exact, numeric) < 1e-5)
    assert np.all(np.abs(exact[:, theta.size :]).max(axis=0) > 1e-6)  # every knob matters
    np.testing.assert_allclose(G, G_again, rtol=1e-12)


@pytest.fixture(scope="module")
def walked():
    """A loop of CPO and what its objective is on it."""
    with jax.enable_x64(True):
        return initial(), Walker(CPO["euclidean"]).loop(initial(), CASES)


@pytest.mark.slow
def test_per_task_constraints_average_to_the_mean(x64, walked):
    theta, loop = walked
    rule, start = CPO["euclidean"], InnerState.init(1)
    found = {
        per_task: quick_jit(MetaObjective(POLICY, rule, per_task=per_task).linearise)(theta, theta, start, loop)
        for per_task in (False, True)
    }
    (g, b, G), (g_each, b_each, G_each) = found[False], found[True]
    assert b.shape == (1, theta.size) and b_each.shape == (2, theta.size)
    np.testing.assert_allclose(g, g_each, rtol=1e-10)
    np.testing.assert_allclose(b[0], b_each.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(G[0], G_each.mean())
    assert np.linalg.norm(b_each[0] - b_each[1]) > 1e-2 * np.linalg.norm(b)
    # Task i's data alone move its row.
    other = jax.tree.map(lambda x: x.at[1].set(x[0]), loop.last)
    changed = eqx.tree_at(lambda w: w.last, loop, other)
    b_other = quick_jit(MetaObjective(POLICY, rule, per_task=True).linearise)(theta, theta, start, changed)[1]
    np.testing.assert_allclose(b_other[0], b_each[0], rtol=1e-10)
    assert not np.allclose(b_other[1], b_each[1])


@pytest.mark.slow
def test_the_outer_constraints_get_the_outer_margins_and_no_others(x64, walked):
    """A task's own c gets its margin; a mean over tasks √(Σ margin²)/M."""
    theta, loop = walked
    start, M = InnerState.init(1), loop.last.c.shape[0]
    outer = jnp.linspace(0.1, 0.4, M)[:, None]
    wide = eqx.tree_at(lambda w: (w.last.margin, w.last.outer_margin), loop, (jnp.full((M, 1), 7.0), outer))
    for per_task, added in ((True, outer.ravel()), (False, jnp.sqrt(jnp.sum(outer**2, axis=0)) / M)):
        objective = MetaObjective(POLICY, CPO["euclidean"], per_task=per_task)
        (_, bare), (_, G) = (objective(theta, theta, start, each) for each in (loop, wide))
        np.testing.assert_allclose(G - bare, added, rtol=1e-10)


@pytest.mark.slow
def test_every_step_can_be_held_and_the_start_alone(x64, walked):
    """ "every" stacks c of φ⁰, φ¹ and φ²; "start" is the first of these; both with the right gradients."""
    theta, loop = walked
    start = InnerState.init(1)
    every = MetaObjective(POLICY, CPO["euclidean"], constraint_on="every")
    _, b, G = quick_jit(every.linearise)(theta, theta, start, loop)
    numeric = quick_jit(lambda t: differences(lambda p: every(p, theta, start, loop)[1], t))(theta)
    assert b.shape == (3, theta.size)
    assert np.all(relative(b, numeric) < 1e-5)
    drawn = jnp.concatenate([loop.batches.c, loop.last.c[None]])[..., 0].mean(axis=1)
    np.testing.assert_allclose(G, drawn, atol=1e-12)  # on its own data c is what was measured
    first = MetaObjective(POLICY, CPO["euclidean"], FirstOrder(), constraint_on="start")
    _, b_start, G_start = quick_jit(first.linearise)(theta, theta, start, loop)
    np.testing.assert_allclose(b_start[0], b[0], rtol=1e-9)
    np.testing.assert_allclose(G_start[0], G[0], atol=1e-12)


@pytest.mark.parametrize("constraint_on", ["adapted", "every"])
@pytest.mark.parametrize("per_task", [False, True])
def test_what_is_predicted_of_the_adapted_policies_is_found_again(constraint_on, per_task):
    """In G's order: tasks, then steps 0..K, then the two costs."""
    M, K, m = 3, 2, 2
    each = jnp.arange(M * (K + 1) * m, dtype=jnp.float32).reshape(M, K + 1, m) ** 2
    each = each if constraint_on == "every" else each[:, -1:]
    G = each.reshape(-1) if per_task else each.mean(axis=0).reshape(-1)
    algorithm = Algorithm(PolicyUpdate(), PolicyUpdate(), constraint_on=constraint_on, per_task=per_task)
    assert float(adapted_cost(G, algorithm, M, m)) == pytest.approx(float(each[:, -1].sum(axis=-1).mean()))
    assert np.isnan(adapted_cost(G, dataclasses.replace(algorithm, constraint_on="start"), M, m))
    assert float(adapted_cost(jnp.zeros(0), algorithm, M, 0)) == 0


def test_the_gradient_without_hessians_is_the_score_at_the_meta_policy(x64, walked):
    """∇F = −mean_i Σ weight · Â · ∇ log π_θ(a|s) on the adapted policies' data, and nothing through the steps."""
    theta, loop = walked
    objective = MetaObjective(POLICY, CPO["euclidean"], HessianFree(), constraint_on="start")
    g = quick_jit(objective.linearise)(theta, theta, InnerState.init(1), loop)[0]

    def expected(p):
        log_prob = POLICY(p, loop.last.z).log_prob(loop.last.action)
        return -jnp.mean(jnp.sum(loop.last.weight * loop.last.reward_advantage * log_prob, axis=1))

    np.testing.assert_allclose(g, jax.grad(expected)(theta), rtol=1e-9)


@pytest.mark.slow
def test_the_regret_bound_pulls_theta_to_the_adapted_and_the_size_to_its_best(x64, walked):
    """F = KL/(ηK) + ½ηÂ² is least in η at √(2·KL/(K·Â²)), where both terms are equal."""
    theta, loop = walked
    rate, K = 0.1, 2
    objective = MetaObjective(
        POLICY,
        PolicyUpdate(step=NaturalGradientStep(rate), region=EUCLIDEAN),
        RegretBound(),
        constraint_on="none",
        learned=("scale",),
    )
    start = InnerState.init(1)

    @quick_jit
    def value(packed):
        return objective(packed, theta, start, loop)[0]

    gaps = jax.vmap(lambda p, D: kl(POLICY, p, theta, D))(loop.phi, loop.last)
    squares = jnp.sum(loop.batches.weight * loop.batches.reward_advantage**2, axis=-1)
    gap, square = float(jnp.mean(gaps)), float(jnp.mean(squares))
    assert float(value(jnp.append(theta, 0.0))) == pytest.approx(gap / (rate * K) + 0.5 * rate * square)
    best = np.sqrt(2 * gap / (K * square))
    slope = jax.grad(lambda s: objective(jnp.append(theta, s), theta, start, loop)[0])(jnp.log(best / rate))
    assert float(slope) == pytest.approx(0.0, abs=1e-9)
    g, b, G = quick_jit(objective.linearise)(jnp.append(theta, 0.0), theta, start, loop)
    assert b.shape == (0, theta.size + 1) and G.shape == (0,)
    # A step against the gradient brings θ nearer to the adapted policies.
    nearer = jax.vmap(lambda p, D: kl(POLICY, p, theta - 1e-3 * g[:-1], D))(loop.phi, loop.last)
    assert jnp.mean(nearer) < gap


@pytest.mark.slow
def test_learned_knobs_move_with_theta_and_others_stay(x64):
    rule, start = RULES["pid lagrangian"], inner_state()
    loop = Walker(rule, start=start).loop(initial(), CASES)
    outer = PolicyUpdate(region=EXACT["kl"])

    def run(learned):
        algorithm = Algorithm(rule, outer, learned=learned)
        return quick_jit(lambda t, w: meta_update(POLICY, t, start, w, algorithm))(initial(), loop)

    theta, moved, outer_stats = run(("multiplier", "scale"))
    stats = outer_stats.step
    assert float(stats.accepted) == 1 and not np.array_equal(theta, initial())
    assert float(moved.multiplier[0]) > 0
    assert abs(float(moved.multiplier[0]) / 0.7 - 1) > 1e-6 and abs(float(moved.log_scale) - 0.3) > 1e-6
    assert float(moved.error[0]) == 0.01
    # ½·log² of the factors counts as divergence: none can change by more than the region allows.
    logs = np.array([np.log(float(moved.multiplier[0]) / 0.7), float(moved.log_scale) - 0.3])
    assert 0.5 * np.sum(logs**2) <= outer.region.max_kl
    _, kept, _ = run(())
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(start), strict=True))


BLIND = ("constrained", "projected", "pid lagrangian", "switch", "penalised")


@pytest.mark.parametrize("name", BLIND)
def test_a_constraint_that_is_absent_moves_nothing(x64, name):
    """Costs that never occur, far below the limit: the step is that without any constraint."""
    rule = RULES[name]

    @quick_jit
    def run(phi, key):
        batch = random_batch(phi, key)
        free = eqx.tree_at(lambda b: (b.cost_advantage, b.c), batch, (batch.cost_advantage * 0, batch.c - 0.5))
        none = eqx.tree_at(lambda b: (b.cost_advantage, b.c), batch, (batch.cost_advantage[:, :0], batch.c[:0]))
        b = jax.jacrev(lambda p: surrogates(POLICY, p, free)[1])(phi)
        start = dataclasses.replace(inner_state(), multiplier=jnp.zeros(1))
        return b, update(POLICY, phi, start, free, rule)[0], update(POLICY, phi, inner_state(0), none, rule)[0]

    b, with_it, without = run(initial(), jax.random.key(0))
    np.testing.assert_array_equal(b, 0)
    np.testing.assert_allclose(with_it, without, rtol=1e-9)
    assert not np.array_equal(without, initial())


def test_a_size_that_is_learned_scales_the_region(x64):
    rule, theta = CPO["kl"], initial()
    batch = quick_jit(random_batch)(theta, jax.random.key(0))
    batch = eqx.tree_at(lambda b: b.c, batch, batch.c - 0.5)
    run = quick_jit(lambda y: update(POLICY, theta, y, batch, rule)[2])
    once = run(InnerState.init(1))
    smaller = run(eqx.tree_at(lambda y: y.log_scale, InnerState.init(1), jnp.log(jnp.asarray(0.25))))
    assert float(smaller.delta) == pytest.approx(0.25 * float(once.delta))  # within the limit all of it is the loss's
    assert 0.02 * rule.region.max_kl < float(smaller.kl) <= 0.25 * rule.region.max_kl < float(once.kl)
    assert unpack(pack(theta, inner_state(), ("scale",)), inner_state(), ("scale",))[1].log_scale == pytest.approx(0.3)
