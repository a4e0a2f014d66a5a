"""Every rule on rows that trigger it exactly, and on their neighbours that do not."""

from pathlib import Path

import numpy as np
import pytest

from metacpo.solver import Case
from metacpo.training import health
from metacpo.training.health_rules import RULES, HealthRule
from metacpo.training.symptoms import CASES, NOT_FINITE
from metacpo.training.tags import describe
from metacpo.training.watch import Watch

COST = "Metrics/EpCost"


def healthy(count: int) -> dict[str, np.ndarray]:
    """Rows that nothing is wrong with: 20 inner updates each, half of them binding and half slack."""
    ones, zeros = np.ones(count), np.zeros(count)
    columns = {f"Misc/Case/{case}": zeros for case in CASES}
    columns |= {tag: zeros for tag in NOT_FINITE}
    columns |= {"Misc/Case/BINDING": 10 * ones, "Misc/Case/SLACK": 10 * ones}
    columns |= {"Meta/Case": int(Case.BINDING) * ones, "Meta/Accepted": ones, "Misc/Rejected": zeros}
    columns |= {"Meta/KL": 0.01 * ones, "Meta/TrustRegion": 0.02 * ones, "Train/KL": 0.1 * ones}
    columns |= {"Misc/TrustRegion": 0.2 * ones, "Meta/CGResidual": zeros, "Misc/CGResidual": zeros}
    columns |= {"Metrics/EpRet": np.arange(count) * 1.0, COST: 10 * ones, "Metrics/CostLimit": 12 * ones}
    columns |= {"Misc/NormaliserDrift": 0.1 * ones, "Misc/DerivativeClipped": zeros, "Meta/DerivativeClipped": zeros}
    return columns | {"iteration": np.arange(1, count + 1)}


def rule(name: str) -> HealthRule:
    return next(rule for rule in RULES if rule.name == name)


def fires(name: str, **changed) -> bool:
    """Whether this rule alone fires on healthy rows with `changed` columns (tags with _ for /)."""
    columns = healthy(rule(name).window)
    columns |= {
        tag.replace("_", "/"): np.broadcast_to(value, columns["iteration"].shape) for tag, value in changed.items()
    }
    names = [rule.name for rule in health.firing(columns, COST)]
    assert names in ([], [name]), names
    return bool(names)


# rule, columns that trigger it exactly, neighbours that do not
EDGES = [
    ("worlds broke", {"Metrics_NonFinite": 1}, {"Metrics_NonFinite": 0}),
    ("reward or cost too large", {"Metrics_EpCost": np.inf}, {"Metrics_EpCost": 9e14}),
    ("reward or cost too large", {"Metrics_EpRet": -1.1e15, "Meta_NonFinite": 1}, {"Metrics_EpRet": -9e14}),
    ("observations too large", {"Misc_ObservationsLeftOut": 1}, {"Misc_ObservationsLeftOut": 0}),
    ("critics exploded", {"Misc_CriticNonFinite": 1}, {"Misc_CriticNonFinite": 0}),
    ("tasks left out", {"Misc_TasksLeftOut": 1}, {"Misc_TasksLeftOut": 0}),
    ("inner updates not finite", {"Misc_NonFiniteUpdates": 1}, {"Misc_NonFiniteUpdates": 0}),
    ("outer update not finite", {"Meta_NonFinite": 1}, {"Meta_NonFinite": 0}),
    ("infeasible", {"Misc_Case_INFEASIBLE": 22}, {"Misc_Case_INFEASIBLE": 21}),  # 21 others, the outer one among them
    ("outer steps rejected", {"Meta_Accepted": 0}, {"Meta_Accepted": [0, 0, 0, 0, 1]}),
    ("inner steps rejected", {"Misc_Rejected": 10.2}, {"Misc_Rejected": 10}),
    ("KL never binds", {"Meta_KL": 0.00099}, {"Meta_KL": 0.00101}),
    ("KL never binds", {"Train_KL": 0.0099}, {"Train_KL": 0.0101}),
    (
        "KL always binds while the return falls",
        {"Meta_KL": 0.01901, "Metrics_EpRet": -np.arange(10.0)},
        {"Meta_KL": [0.02] * 9 + [0.0189], "Metrics_EpRet": -np.arange(10.0)},
    ),
    (
        "KL always binds while the return falls",
        {"Train_KL": 0.1901, "Metrics_EpRet": -np.arange(10.0)},
        {"Train_KL": 0.1901, "Metrics_EpRet": [3, -3] * 5},
    ),
    ("linear solves inexact", {"Misc_CGResidual": 0.101}, {"Misc_CGResidual": 0.1}),
    ("linear solves inexact", {"Meta_CGResidual": 0.501}, {"Meta_CGResidual": 0.5}),
    (
        "limit out of reach",
        {"Metrics_EpCost": 12.1, "Misc_Case_RECOVERING": 22},
        {"Metrics_EpCost": [12.1] * 19 + [12], "Misc_Case_RECOVERING": 22},
    ),
    ("limit out of reach", {"Metrics_EpCost": 12.1, "Misc_Case_RECOVERING": 22}, {"Metrics_EpCost": 12.1}),
    ("normaliser drift", {"Misc_NormaliserDrift": 1.01}, {"Misc_NormaliserDrift": 1}),
    ("meta-gradient often bounded", {"Misc_DerivativeClipped": 10.1}, {"Misc_DerivativeClipped": 10}),
    (
        "meta-gradient often bounded",
        {"Meta_DerivativeClipped": [1] * 6 + [0] * 4},
        {"Meta_DerivativeClipped": [1] * 5 + [0] * 5},
    ),
]


@pytest.mark.parametrize(
    ("name", "trigger", "neighbour"), EDGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_fires_exactly_there(name, trigger, neighbour):
    assert fires(name, **trigger)
    assert not fires(name, **neighbour)


def test_every_rule_is_tested_and_says_what_to_do():
    assert {rule.name for rule in RULES} == {name for name, _, _ in EDGES}
    for each in RULES:
        assert each.meaning.endswith(".") and each.advice.endswith(".")


def test_healthy_rows_and_too_few_rows_say_nothing():
    assert health.findings(healthy(60), COST) == []
    short = healthy(9) | {"Misc/Case/INFEASIBLE": np.full(9, 99.0)}
    assert health.firing(short, COST) == []


def test_columns_that_are_missing_or_empty_say_nothing():
    empty = {tag: np.full(30, np.nan) for tag in healthy(1)} | {"iteration": np.arange(30)}
    assert health.findings(empty, COST) == [] == health.findings({"iteration": np.arange(30)}, COST)


def test_case_numbers_are_those_of_the_solver():
    assert [Case[name] for name in CASES] == list(range(len(Case)))


def test_findings_say_when():
    columns = healthy(30)
    columns["Meta/Accepted"] = np.array([1.0] * 10 + [0.0] * 7 + [1.0] * 13)
    (found,) = health.findings(columns, COST)
    assert (found.rule.name, found.first, found.last, found.count) == ("outer steps rejected", 15, 17, 3)


def two_constraints(count: int) -> dict[str, np.ndarray]:
    """Rows in which the slack of one constraint hides in the sum that the other one is broken."""
    ones = np.ones(count)
    costs = {f"{COST}/heat": 10 * ones, f"{COST}/speed": 2 * ones}
    limits = {"Metrics/CostLimit/heat": 100 * ones, "Metrics/CostLimit/speed": ones}
    sums = {COST: 12 * ones, "Metrics/CostLimit": 101 * ones}
    return healthy(count) | costs | limits | sums | {"Misc/Case/RECOVERING": 22 * ones}


def test_a_single_constraint_that_is_out_of_reach_is_named():
    columns = two_constraints(25)
    (found,) = health.findings(columns, COST)
    assert (found.rule.name, found.first, found.count) == ("limit out of reach: speed", 20, 6)
    assert health.findings(columns | {f"{COST}/speed": np.ones(25)}, COST) == []  # at its limit
    both = health.firing(columns | {f"{COST}/heat": np.full(25, 101.0)}, COST)
    assert [rule.name for rule in both] == ["limit out of reach: heat", "limit out of reach: speed"]
    watch, said = Watch(COST), []
    for i in range(25):
        said += watch.see(i + 1, {tag: column[i] for tag, column in columns.items() if tag != "iteration"})
    assert len(said) == 1 and "limit out of reach: speed" in said[0]


def test_counters_of_a_row():
    row = {"Metrics/NonFinite": np.float32(2), "Meta/NonFinite": np.float32(0), "Metrics/EpRet": np.float32(1)}
    assert health.not_finite(row) == {"Metrics/NonFinite": 2.0}
    assert all(describe(tag) for tag in NOT_FINITE)


def test_training_is_told_once():
    watch, columns = Watch(COST), healthy(12) | {"Meta/Accepted": np.zeros(12)}
    lines = []
    for i in range(12):
        lines += watch.see(i + 1, {tag: column[i] for tag, column in columns.items() if tag != "iteration"})
    assert len(lines) == 1 and lines[0].startswith("warning, meta-iteration 5: outer steps rejected")


def test_the_documentation_lists_every_rule():
    text = (Path(__file__).parents[2] / "docs" / "health.md").read_text(encoding="utf-8")
    for each in RULES:
        assert f"| {each.name} | {each.threshold} | {each.meaning} | {each.advice} |" in text
    assert all(f"`{tag}`" in text for tag in NOT_FINITE)
