"""The health rules (health_rules.py) on the rows of metrics.csv: which fire, and when. No JAX here.

A rule looks at the last `window` meta-iterations and never fires on fewer, nor where a column that it needs is missing
or empty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from metacpo.training.health_rules import RULES, HealthRule
from metacpo.training.symptoms import NOT_FINITE, Columns
from metacpo.training.tags import constraints_in, of_constraint


@dataclass(frozen=True)
class Finding:
    """A rule that fired, first and last at the ends of these meta-iterations, and how often in all."""

    rule: HealthRule
    first: int
    last: int
    count: int


def findings(columns: Columns, cost: str) -> list[Finding]:
    """Every rule that fired somewhere in a run, in the order of RULES; `cost` is the tag of the limited cost."""
    iterations = columns["iteration"]
    found = []
    for rule, limited in _rules(columns, cost):
        places = range(rule.window, len(iterations) + 1)
        ends = [int(iterations[end - 1]) for end in places if _at(rule, columns, limited, end)]
        if ends:
            found.append(Finding(rule, ends[0], ends[-1], len(ends)))
    return found


def firing(columns: Columns, cost: str) -> list[HealthRule]:
    """The rules that fire at the end of these rows."""
    count = len(columns["iteration"])
    rules = _rules(columns, cost)
    return [rule for rule, limited in rules if count >= rule.window and _at(rule, columns, limited, count)]


def _rules(columns: Columns, cost: str) -> Iterator[tuple[HealthRule, str]]:
    """Every rule with the tag of the cost that it looks at. Of several constraints no sum says whether one is broken:
    a rule that asks this is there once for each, under its name."""
    for rule in RULES:
        names = constraints_in(columns) if rule.each else []
        for name in names:
            yield replace(rule, name=f"{rule.name}: {name}"), of_constraint(cost, name)
        if not names:
            yield rule, cost


def not_finite(row: Mapping[str, Any]) -> dict[str, float]:
    """The counters of one row that say that something was not finite, and how much of it."""
    return {tag: float(row[tag]) for tag in NOT_FINITE if tag in row and float(row[tag]) > 0}


def _at(rule: HealthRule, columns: Columns, cost: str, end: int) -> bool:
    """Whether a rule fires on the `window` rows before `end`."""
    return rule.fires({tag: column[end - rule.window : end] for tag, column in columns.items()}, cost)
