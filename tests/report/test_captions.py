"""What the report says follows from the numbers: rising, falling, noise and nothing at all."""

import dataclasses

import numpy as np
import pytest
from synthetic_runs import write_run

from metacpo.report.captions import adaptation_words, case_words, lead, learning_words
from metacpo.report.measures import COSTS, RETURN, limited_measures, measures_of
from metacpo.report.read import read_run
from metacpo.report.summary import direction
from metacpo.report.updates import CASES

ITERATIONS = 40


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path / "run", ITERATIONS, paths=False))


def set_ends(run, suffix, before, after):
    for step, value in ((0, before), (3, after)):
        run.metrics[f"Adapt/step{step}/{suffix}"][:] = value
    run.metrics[f"Metrics/{suffix}"][:] = after


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (10.0, 20.0, "adaptation (3 updates) raises it: 10.0 before, 20.0 after."),
        (20.0, 10.0, "adaptation (3 updates) lowers it: 20.0 before"),
    ],
)
def test_the_words_about_a_curve_follow_its_direction(run, before, after, words):
    set_ends(run, "EpRet", before, after)
    assert f"In the last 4 meta-iterations, {words}" in learning_words([run], RETURN)


def test_a_gap_within_its_noise_is_not_called_a_change(run):
    set_ends(run, "EpRet", 0.0, np.where(np.arange(ITERATIONS) % 2, 1.0, -0.9))
    assert "adaptation (3 updates) does not clearly change it" in learning_words([run], RETURN)
    assert direction(np.zeros(4), np.array([1.0, -0.9, 1.0, -0.9])) == 0
    assert direction(np.zeros(4), np.array([1.0, 0.9, 1.0, 0.9])) == 1
    assert direction(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize(("after", "words"), [(24.0, "within the limit of 25.0."), (26.0, "above the limit of 25.0.")])
def test_a_limited_cost_is_held_against_its_limit(run, after, words):
    set_ends(run, "EpCost", 30.0, after)
    (limited,) = limited_measures([run])
    assert learning_words([run], limited).endswith(words)
    assert "limit" not in learning_words([run], COSTS["discounted_cost"])


def test_no_cost_at_all_is_a_measurement(run):
    set_ends(run, "EpCost", 0.0, 0.0)
    (limited,) = limited_measures([run])
    assert learning_words([run], limited) == "No episode had any cost: 0 is what was measured."
    numbers = run.adaptation.numbers
    for column in ("episode_cost", "discounted_cost"):
        numbers[column][:] = 0
    words = adaptation_words([run], "shifted", limited)
    assert words.startswith("No episode had any cost: 0 is what was measured. That holds for each of the 4 tasks")
    assert "no cost on any task (limit 25)" in lead(run, "shifted")


def test_several_runs_are_counted(run):
    other = dataclasses.replace(run, metrics={tag: values.copy() for tag, values in run.metrics.items()})
    set_ends(run, "EpCost", 30.0, 20.0)
    set_ends(other, "EpCost", 30.0, 40.0)
    (limited,) = limited_measures([run])
    words = learning_words([run, other], limited)
    assert "raises it in 1 and lowers it in 1 of 2 runs; it ends within the limit in 1 of 2 runs." in words


def test_adaptation_curves_in_words(run):
    assert adaptation_words([run], "held-out", RETURN) == "The mean goes from 11.5 to 41.5; it rises on 4 of 4 tasks."
    (limited,) = limited_measures([run])
    words = "The mean goes from 44.5 to 29.5; 1 of 4 tasks end within the limit."
    assert adaptation_words([run], "shifted", limited) == words


def test_cases_in_words_say_where_repairs_are():
    counts = {case: np.zeros(6) for case in CASES}
    counts["SLACK"] += 10
    env_steps = np.arange(1, 7) * 1e6
    assert case_words(counts, env_steps) == "No update had to repair a broken limit."
    counts["INFEASIBLE"][3] = 30  # 30 of 50 in the middle third
    assert case_words(counts, env_steps) == (
        "Red and orange steps repair a broken limit: 0\u00a0% of the updates in the first third, "
        "60\u00a0% in the middle, 0\u00a0% in the last. Red is most frequent after 4M steps (75\u00a0%)."
    )


def test_a_sum_of_several_constraints_has_no_limit(tmp_path):
    run = read_run(write_run(tmp_path / "run", paths=False, several=True))
    assert run.constraints == ("walls", "hazards")
    limits = {measure.words: measure.limit_tag for measure in measures_of([run])}
    assert limits["Episode cost, sum of the constraints"] == ""
    assert limits["Episode cost of walls"] == "Metrics/CostLimit/walls"
