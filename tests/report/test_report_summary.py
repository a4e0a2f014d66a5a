"""The report's numbers against numbers worked out by hand."""

import math

import numpy as np
import pytest
from synthetic_runs import CONFIG, write_run

from metacpo.report.read import read_run
from metacpo.report.summary import robust_limits, rolling, slope_through_origin, thin, verdict
from metacpo.statistics import mean_interval


def test_verdict_equals_hand_computed_means(tmp_path):
    # Held-out task i: return 10(k + 1) + i and cost 40 − 5(k + i), so means 11.5 → 41.5 and 32.5 → 17.5;
    # before, only task 3 (cost 25) meets 25; after, costs are 25, 20, 15, 10.
    run = read_run(write_run(tmp_path / "run"))
    held_out, shifted = (verdict(run, split) for split in run.adaptation.splits)
    assert (held_out.before.returns, held_out.after.returns) == (11.5, 41.5)
    assert (held_out.before.episode_cost, held_out.after.episode_cost) == (32.5, 17.5)
    assert (held_out.before.discounted_cost, held_out.after.discounted_cost) == (6.5, 3.5)
    assert (held_out.before.within, held_out.after.within, held_out.after.tasks) == (1, 4, 4)
    assert (held_out.before.share, held_out.after.share) == (0.25, 1.0)
    assert held_out.limits == (25, 25) and held_out.steps == 3
    # Shifted costs are 12 higher: 37, 32, 27, 22 after adaptation.
    assert (shifted.before.within, shifted.after.within) == (0, 1)
    assert shifted.cost(shifted.after) == 29.5


def test_episodes_above_and_the_worst_task_by_hand(tmp_path):
    # Held-out costs after adaptation: 25, 20, 15, 10, so 50, 40, 30 and 20 % of the episodes are above; before, 15 more
    # cost and 30 % more episodes each.
    row = verdict(read_run(write_run(tmp_path / "run", wider=True)), "held-out")
    assert (row.before.above, row.after.above) == pytest.approx((0.65, 0.35))
    assert (row.before.worst, row.after.worst) == (15, 0)
    low, high = row.after.intervals["above"]
    assert 0.2 <= low < 0.35 < high <= 0.5
    assert row.after.intervals["returns"] == mean_interval([40, 41, 42, 43])


def test_a_run_of_an_earlier_version_says_neither(tmp_path):
    row = verdict(read_run(write_run(tmp_path / "run")), "held-out")
    assert math.isnan(row.after.above) and math.isnan(row.after.worst)


def test_the_limited_cost_follows_the_config(tmp_path):
    config = CONFIG.replace('"episode"', '"discounted"')
    row = verdict(read_run(write_run(tmp_path / "run", config=config)), "held-out")
    assert row.cost(row.after) == 3.5


def test_a_task_without_its_last_step_counts_nowhere(tmp_path):
    folder = write_run(tmp_path / "run")
    lines = (folder / "adaptation.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("held-out,3,3,")]
    assert len(kept) == len(lines) - 1
    (folder / "adaptation.csv").write_text("\n".join(kept))
    row = verdict(read_run(folder), "held-out")
    assert (row.before.tasks, row.before.within, row.after.within) == (3, 0, 3)
    assert (row.before.returns, row.after.returns) == (11.0, 41.0)


def test_robust_limits_ignore_an_outlier():
    values = np.append(np.linspace(0, 10, 50), 1e6)
    low, high = robust_limits(values, np.zeros(0))
    assert -2 < low < 0 and 10 < high < 20


def test_robust_limits_keep_a_slow_start_and_the_limit_line():
    rise = np.concatenate([np.linspace(-20, 40, 8), np.full(92, 40.0) + np.sin(np.arange(92))])
    low, high = robust_limits(rise, np.array([55.0]))
    assert low <= -20 and high >= 55


@pytest.mark.parametrize("values", [np.zeros(0), np.array([np.nan]), np.full(9, 3.0), np.zeros(4)])
def test_robust_limits_of_nothing_or_of_a_constant_are_an_interval(values):
    low, high = robust_limits(values, np.zeros(0))
    assert math.isfinite(low) and low < high


def test_rolling_median_by_hand():
    smooth = rolling(np.array([1.0, 9.0, 2.0, np.nan, 4.0]), 3)
    np.testing.assert_allclose(smooth, [5.0, 2.0, 5.5, 3.0, 4.0])


def test_rolling_over_nothing_finite_is_nan():
    assert np.isnan(rolling(np.full(4, np.nan), 3)).all()


def test_slope_through_origin():
    x = np.array([1.0, 2.0, np.nan])
    assert slope_through_origin(x, np.array([1.0, 3.0, 5.0])) == pytest.approx(7 / 5)
    assert math.isnan(slope_through_origin(np.zeros(3), x))


@pytest.mark.parametrize("count", [1, 10, 11, 1999])
def test_thin_bounds_the_number(count):
    assert 0 < len(np.arange(count)[thin(count, 10)]) <= 10
