"""Learning runs: what the README promises of the presets, from the first iteration to the last adapted task."""

import jax
import numpy as np
import pytest

from metacpo.adaptation.evaluate import evaluate
from metacpo.config.schema import Config
from metacpo.envs.families import bandit, tabular
from metacpo.training import loop


def curves(preset, tmp_path):
    """Train a preset and adapt to its held-out tasks: these, and return, cost [K + 1, M] and limit [M]."""
    config = Config.preset(preset)
    run = loop.train(config, tmp_path / "run")
    result = evaluate(run.setup, run.state, config.adaptation, ("held-out",), seed=0).splits[0]
    stats, limit = result.adaptation.stats, np.asarray(result.tasks.cost_limit)[:, 0]
    tasks = [jax.tree.map(lambda x: x[i], result.tasks) for i in range(len(limit))]  # noqa: B023
    return tasks, np.asarray(stats.episode_return), np.asarray(stats.episode_cost)[..., 0], limit


@pytest.mark.slow
def test_point_circle_is_good_and_safe_after_five_updates(tmp_path):
    config = Config.preset("point-circle")
    run = loop.train(config, tmp_path / "run")
    rows = evaluate(run.setup, run.state, config.adaptation, ("held-out", "shifted"), seed=0).rows
    last = {split: [r for r in rows if r.split == split and r.step == 5] for split in ("held-out", "shifted")}
    assert len(last["held-out"]) == len(last["shifted"]) == 20
    assert np.mean([row.episode_return for row in last["held-out"]]) >= 30
    assert np.mean([row.satisfied for row in last["held-out"]]) >= 0.9
    assert np.mean([row.satisfied for row in last["shifted"]]) >= 0.8
    # The updates are what does it: the meta-policy itself earns less, or breaks the limit on more tasks.
    first = [row for row in rows if row.split == "held-out" and row.step == 0]
    better_return = np.mean([r.episode_return for r in last["held-out"]]) > np.mean([r.episode_return for r in first])
    assert better_return or sum(r.satisfied for r in last["held-out"]) > sum(r.satisfied for r in first)


@pytest.mark.slow
def test_bandit_reaches_the_closed_form_optimum(tmp_path):
    tasks, earned, paid, limit = curves("bandit", tmp_path)
    best = np.mean([float(bandit.optimal_value(task)[0]) for task in tasks])
    assert earned[-1].mean() >= 0.95 * best
    assert earned[0].mean() <= 0.6 * best  # it is the updates that find the goal
    assert paid[-1].mean() <= limit.mean()
    assert np.mean(paid[-1] <= limit) >= 0.9


@pytest.mark.slow
def test_toll_gates_reach_the_optimum_of_the_linear_program(tmp_path):
    tasks, earned, paid, limit = curves("tabular", tmp_path)
    best = np.mean([tabular.optimal_value(task, float(h))[0] for task, h in zip(tasks, limit, strict=True)])
    assert earned[-1].mean() >= 0.95 * best
    assert paid[-1].mean() <= limit.mean()
    assert np.mean(paid[-1] <= limit) >= 0.9
    assert np.mean(paid[0] <= limit) <= 0.7  # one policy for all tasks does not hold their limits


@pytest.mark.slow
def test_navigation_finds_the_hazards_that_it_does_not_see(tmp_path):
    _, earned, paid, limit = curves("navigation", tmp_path)
    assert earned[-1].mean() >= 4.0  # of 2.4 m and at most about 2.2 of bonuses
    assert np.mean(paid[-1] <= limit) >= 0.9
    assert paid[-1].mean() <= 0.6 * paid[0].mean()
