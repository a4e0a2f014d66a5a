"""Whatever breaks: parameters and estimates stay finite, learning goes on, and the metrics count what happened."""

from functools import cache
from itertools import pairwise

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.exact import quick_jit

from metacpo.algorithms import meta_gradients
from metacpo.estimation import critics
from metacpo.solver import Case
from metacpo.training.health import firing
from metacpo.training.iteration import meta_iteration
from metacpo.training.state import init_state
from metacpo.training.tags import describe

ITERATIONS = 4
COUNTERS = (
    "Metrics/NonFinite",
    "Misc/CriticNonFinite",
    "Misc/NonFiniteUpdates",
    "Misc/ObservationsLeftOut",
    "Misc/TasksLeftOut",
    "Meta/NonFinite",
)
BROKEN = {"nan-world", "nan-start", "nan-task", "nan-all", "inf-cost", "nan-reward"}  # worlds that are left out


def program(damping: float):
    """(code of the fault, state) ↦ a meta-iteration. The faults of critic and gradient are put into its program too."""

    def iteration(code, state):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(critics.CRITICS, "ridge", exploding(code))
            patch.setattr(meta_gradients, "differentiable_inner_loop", poisoned(code))
            return meta_iteration(faults.learner(code, damping), state)

    return quick_jit(iteration)


def exploding(code):
    """The critic by ridge regression; one of its values is infinite under the fault "critic"."""
    ridge = critics.CRITICS["ridge"]

    def critic(z, z_final, targets):
        v, v_final = ridge(z, z_final, targets)
        return v.at[0, 0].set(jnp.where(code == faults.CODES["critic"], jnp.inf, v[0, 0])), v_final

    return critic


def poisoned(code):
    """The loop as a function of θ; under the fault "gradient" the derivative of about half of the tasks is NaN."""
    differentiable_inner_loop = meta_gradients.differentiable_inner_loop

    @jax.custom_vjp
    def poison(phi, bad):
        return phi

    poison.defvjp(lambda phi, bad: (phi, bad), lambda bad, g: (jnp.where(bad, jnp.nan, g), None))

    def replayed(policy, theta, inner_state, batches, updates, *how, **named):
        phi, path = differentiable_inner_loop(policy, theta, inner_state, batches, updates, *how, **named)
        return poison(phi, (batches.reward_advantage[0, 0] > 0) & (code == faults.CODES["gradient"])), path

    return replayed


def history(iterate, code: int) -> tuple[list, list[dict[str, np.ndarray]]]:
    """States before and after each of a few meta-iterations, and the rows of these."""
    states, rows = [init_state(faults.learner(code), 0)], []
    for _ in range(ITERATIONS):
        state, row = iterate(jnp.int32(code), states[-1])
        states.append(state)
        rows.append({tag: np.asarray(value) for tag, value in row.items()})
    return states, rows


@cache
def usual_program():
    return program(damping=0.1)


@cache
def faulty(fault: str):
    return history(usual_program(), faults.CODES[fault])


def assert_finite(states, rows):
    for state in states:
        for part in (state.theta, state.inner_state, state.normaliser):
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(part))
    for number, row in enumerate(rows):
        for tag, value in row.items():
            assert describe(tag).description
            promise = tag.startswith(("Meta/Return", "Meta/Cost")) and number == 0  # nothing before it to compare
            assert promise or np.isfinite(value), tag


def total(rows, tag: str) -> float:
    return float(sum(row[tag] for row in rows))


def moved(states) -> list[bool]:
    """Whether θ moved, iteration by iteration."""
    return [bool(jnp.any(a.theta != b.theta)) for a, b in pairwise(states)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(set(faults.FAULTS) - {"huge-cost"}))
def test_every_number_stays_finite(fault):
    assert_finite(*faulty(fault))


@pytest.mark.parametrize("fault", sorted(set(faults.FAULTS) - {"nan-all", "huge-cost"}))
def test_learning_goes_on(fault):
    states, rows = faulty(fault)
    assert any(moved(states)), [row["Meta/Case"] for row in rows]


@pytest.mark.parametrize("fault", sorted(faults.FAULTS))
def test_worlds_that_broke_are_counted(fault):
    counted = total(faulty(fault)[1], "Metrics/NonFinite")
    assert counted > 0 if fault in BROKEN else counted == 0


def test_a_healthy_run_counts_nothing():
    for tag in COUNTERS:
        assert total(faulty("none")[1], tag) == 0, tag


def test_without_any_world_nothing_moves_and_nothing_looks_safe():
    states, rows = faulty("nan-all")
    assert not any(moved(states))
    np.testing.assert_array_equal(states[-1].normaliser.mean, states[0].normaliser.mean)
    for row in rows:
        assert row["Meta/Case"] == Case.INVALID and row["Meta/Accepted"] == 0 and row["Meta/NonFinite"] == 1
        assert row["Misc/TasksLeftOut"] == 4 and row["Metrics/SatisfiedFraction"] == 0
        assert row["Metrics/NonFinite"] == 4 * 3 * 6  # M tasks, K + 1 rollouts, B episodes


def test_costs_that_are_infinite_in_sum_leave_nothing_to_learn_from():
    """Every step's cost is finite. No constraint is left: that is no reason to call the step unconstrained."""
    states, rows = faulty("huge-cost")
    assert not any(moved(states)) and np.all(np.isfinite(states[-1].theta))
    for row in rows:
        assert row["Misc/TasksLeftOut"] == 4 and row["Metrics/SatisfiedFraction"] == 0
        assert row["Meta/Case"] == Case.INVALID and row["Meta/Accepted"] == 0 and row["Meta/NonFinite"] == 1
        columns = {tag: value[None] for tag, value in row.items()} | {"iteration": np.ones(1)}
        assert [rule.name for rule in firing(columns, "Metrics/EpCost")] == ["reward or cost too large"]


def test_an_observation_without_a_variance_does_not_stop_the_normaliser_of_the_others():
    states, rows = faulty("huge-place")
    healthy, _ = faulty("none")
    new, first = states[1].normaliser, states[0].normaliser
    assert new.mean[0] == first.mean[0] and new.var[0] == first.var[0]
    np.testing.assert_array_equal(new.mean[1:], healthy[1].normaliser.mean[1:])
    np.testing.assert_array_equal(new.var[1:], healthy[1].normaliser.var[1:])
    assert new.count == healthy[1].normaliser.count > 0
    assert all(row["Misc/ObservationsLeftOut"] == 1 and row["Misc/TasksLeftOut"] == 0 for row in rows)


@pytest.mark.parametrize("fault", ["nan-task", "huge-reward", "huge-observation"])
def test_a_broken_task_does_not_stop_the_others(fault):
    states, rows = faulty(fault)
    struck = [row for row in rows if 0 < row["Misc/TasksLeftOut"] < 4]
    if fault == "nan-task":
        assert struck
        for row, went in zip(rows, moved(states), strict=True):
            assert went == (row["Misc/TasksLeftOut"] < 4)
            assert row["Metrics/EpLen"] == 8 * (4 - row["Misc/TasksLeftOut"]) / 4
    assert sum(moved(states)) >= ITERATIONS // 2


def test_a_critic_that_explodes_counts_as_zero():
    for row in faulty("critic")[1]:
        assert row["Misc/CriticNonFinite"] == 4 * 3 * 2  # tasks, rollouts, signals
        assert row["Misc/NonFiniteUpdates"] == 0


def test_a_task_whose_gradient_is_not_finite_has_no_share_in_the_step():
    states, rows = faulty("gradient")
    healthy, _ = faulty("none")
    assert any(moved(states))
    assert np.any(states[1].theta != healthy[1].theta)  # the fault did strike
    assert total(rows, "Meta/NonFinite") > 0 and total(rows, "Misc/TasksLeftOut") == 0


@pytest.mark.slow
def test_a_singular_fisher_matrix():
    """No damping, and weights that hardly matter: conjugate gradients go astray. The line search holds what they say to
    its word, and the residual in the metrics says what is wrong."""
    states, rows = history(program(damping=0.0), faults.CODES["none"])
    assert_finite(states, rows)
    assert any(moved(states))
    assert max(row["Meta/CGResidual"] for row in rows) > 0.5  # what health.py warns of
