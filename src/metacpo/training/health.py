"""What is worth a warning in the rows of metrics.csv: every rule, with what it means and what to do. No JAX here.

A rule looks at the last `window` meta-iterations and never fires on fewer, nor where a column that it needs is missing
or empty (a warm-up has no inner updates).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Columns = Mapping[str, np.ndarray]  # metrics.csv by column, one number a meta-iteration

# The numbers of the cases are those of metacpo.solver.Case.
CASES = ("INFEASIBLE", "RECOVERING", "BINDING", "SLACK", "UNCONSTRAINED", "INVALID")
NOT_FINITE = (
    "Metrics/NonFinite",
    "Misc/CriticNonFinite",
    "Misc/ObservationsLeftOut",
    "Misc/TasksLeftOut",
    "Misc/NonFiniteUpdates",
    "Meta/NonFinite",
)
SUMS = ("Metrics/EpRet", "Metrics/EpCost", "Metrics/DiscountedCost")
LARGEST_SUM = 1e15  # of an episode: its square is still far from where float32 ends, 3.4e38


@dataclass(frozen=True)
class HealthRule:
    """What is seen when `fires` says so of exactly `window` rows, what it means, and what to do about it.

    `fires` gets the columns and the tag of the cost that the limit limits.
    """

    name: str
    threshold: str
    meaning: str
    advice: str
    window: int
    fires: Callable[[Columns, str], bool]


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
    for rule in RULES:
        places = range(rule.window, len(iterations) + 1)
        ends = [int(iterations[end - 1]) for end in places if _at(rule, columns, cost, end)]
        if ends:
            found.append(Finding(rule, ends[0], ends[-1], len(ends)))
    return found


def firing(columns: Columns, cost: str) -> list[HealthRule]:
    """The rules that fire at the end of these rows."""
    count = len(columns["iteration"])
    return [rule for rule in RULES if count >= rule.window and _at(rule, columns, cost, count)]


def not_finite(row: Mapping[str, Any]) -> dict[str, float]:
    """The counters of one row that say that something was not finite, and how much of it."""
    return {tag: float(row[tag]) for tag in NOT_FINITE if tag in row and float(row[tag]) > 0}


def _at(rule: HealthRule, columns: Columns, cost: str, end: int) -> bool:
    """Whether a rule fires on the `window` rows before `end`."""
    return rule.fires({tag: column[end - rule.window : end] for tag, column in columns.items()}, cost)


def _have(columns: Columns, *tags: str) -> bool:
    return all(tag in columns and bool(np.all(np.isfinite(columns[tag]))) for tag in tags)


def _updates(columns: Columns, cases: Sequence[str]) -> float:
    """How many updates, inner and outer, ended in one of these cases."""
    inner = sum(float(np.nansum(columns[tag])) for case in cases if (tag := f"Misc/Case/{case}") in columns)
    outer = columns.get("Meta/Case", np.zeros(0))
    return float(inner + sum(int(np.sum(outer == CASES.index(case))) for case in cases))


def _share(columns: Columns, *cases: str) -> float:
    """Share of all updates that ended in one of these cases."""
    return _updates(columns, cases) / max(_updates(columns, CASES), 1.0)


def _counted(tag: str) -> Callable[[Columns, str], bool]:
    return lambda columns, cost: _have(columns, tag) and bool(np.any(columns[tag] > 0))


def _too_large(columns: Columns, cost: str) -> bool:
    """Whether returns or costs are so large that what is computed from them is not finite."""
    return any(tag in columns and bool(np.any(np.abs(columns[tag]) > LARGEST_SUM)) for tag in SUMS)


def _lost(tag: str) -> Callable[[Columns, str], bool]:
    """As `_counted`, of what is not simply too large: that has a rule and a remedy of its own."""
    return lambda columns, cost: _counted(tag)(columns, cost) and not _too_large(columns, cost)


def _infeasible(columns: Columns, cost: str) -> bool:
    return _share(columns, "INFEASIBLE") > 0.5


def _outer_rejected(columns: Columns, cost: str) -> bool:
    return _have(columns, "Meta/Accepted") and bool(np.all(columns["Meta/Accepted"] == 0))


def _inner_rejected(columns: Columns, cost: str) -> bool:
    inner = [f"Misc/Case/{case}" for case in CASES]
    if not _have(columns, "Misc/Rejected", *inner):
        return False
    return bool(np.sum(columns["Misc/Rejected"]) > 0.5 * sum(np.sum(columns[tag]) for tag in inner))


def _regions(columns: Columns) -> list[np.ndarray]:
    """KL as a share of the trust region, of the outer updates and of the inner ones."""
    pairs = (("Meta/KL", "Meta/TrustRegion"), ("Train/KL", "Misc/TrustRegion"))
    return [columns[kl] / np.maximum(columns[size], 1e-12) for kl, size in pairs if _have(columns, kl, size)]


def _never_binds(columns: Columns, cost: str) -> bool:
    return any(bool(np.mean(share) < 0.05) for share in _regions(columns))


def _always_binds(columns: Columns, cost: str) -> bool:
    if not _have(columns, "Metrics/EpRet"):
        return False
    before, after = np.split(columns["Metrics/EpRet"], 2)
    noise = np.sqrt((np.var(before) + np.var(after)) / len(after))
    falls = np.mean(before) - np.mean(after) > 2 * noise
    return bool(falls) and any(bool(np.all(share >= 0.95)) for share in _regions(columns))


def _residual(columns: Columns, cost: str) -> bool:
    # Derivatives go through the inner solves; the outer one gives a direction alone, which the line search judges.
    most = {"Misc/CGResidual": 0.1, "Meta/CGResidual": 0.5}
    return any(_have(columns, tag) and bool(np.mean(columns[tag]) > size) for tag, size in most.items())


def _out_of_reach(columns: Columns, cost: str) -> bool:
    if not _have(columns, cost, "Metrics/CostLimit"):
        return False
    above = np.all(columns[cost] > columns["Metrics/CostLimit"])
    return bool(above) and _share(columns, "INFEASIBLE", "RECOVERING") > 0.5


def _drifts(columns: Columns, cost: str) -> bool:
    return _have(columns, "Misc/NormaliserDrift") and bool(np.mean(columns["Misc/NormaliserDrift"]) > 1)


def _edges(columns: Columns, cost: str) -> bool:
    inner = [f"Misc/Case/{case}" for case in CASES]
    if _have(columns, "Meta/DerivativeClipped") and np.mean(columns["Meta/DerivativeClipped"]) > 0.5:
        return True
    return _have(columns, "Misc/DerivativeClipped", *inner) and bool(
        np.sum(columns["Misc/DerivativeClipped"]) > 0.5 * sum(np.sum(columns[tag]) for tag in inner)
    )


RULES = (
    HealthRule(
        "worlds broke",
        "Metrics/NonFinite > 0",
        "An observation, a reward or a cost was not finite; those worlds were left out from that step on.",
        "Look at the environment: a time step too long for its contacts is the usual cause.",
        1,
        _counted("Metrics/NonFinite"),
    ),
    HealthRule(
        "reward or cost too large",
        "a mean return or cost of an episode above 1e15, or not finite",
        "Every step's number is finite, but sums or squares of them are more than float32 holds; updates were dropped.",
        "Scale the reward and the cost to the size of 1 a step: `metacpo check-env` says which one is too large.",
        1,
        _too_large,
    ),
    HealthRule(
        "observations too large",
        "Misc/ObservationsLeftOut > 0",
        "The square of an observation is more than float32 holds; it was not normalised, and policies see it clipped.",
        "Scale that observation to the size of 1, or leave it out: `metacpo check-env` says which one it is.",
        1,
        _counted("Misc/ObservationsLeftOut"),
    ),
    HealthRule(
        "critics exploded",
        "Misc/CriticNonFinite > 0",
        "A critic gave values that are not finite; its advantages were returns instead, noisier but right.",
        "Scale the reward or the cost to the size of 1 a step, or take the other critic (estimation.critic).",
        1,
        _lost("Misc/CriticNonFinite"),
    ),
    HealthRule(
        "tasks left out",
        "Misc/TasksLeftOut > 0",
        "Tasks without a single valid step, or with a number that is not finite, had no share in the outer update.",
        "See which tasks break all their worlds, and keep the distribution of tasks away from them.",
        1,
        _lost("Misc/TasksLeftOut"),
    ),
    HealthRule(
        "inner updates not finite",
        "Misc/NonFiniteUpdates > 0",
        "Inner updates were rejected because a number was not finite or H singular; these policies did not move.",
        "Raise inner.damping; if that does not help, repeat the iteration with --debug-nans.",
        1,
        _lost("Misc/NonFiniteUpdates"),
    ),
    HealthRule(
        "outer update not finite",
        "Meta/NonFinite > 0",
        "A task's meta-gradient or the outer step was not finite, and was dropped.",
        "Raise outer.damping or take fewer inner steps; --debug-nans stops at the first one.",
        1,
        _lost("Meta/NonFinite"),
    ),
    HealthRule(
        "infeasible",
        "over half of the updates of 10 meta-iterations",
        "No step within the trust region met the limit, so that updates only lowered the cost.",
        "Normal while the first policies learn; if it stays, raise cost_limit or max_kl, or lower the confidence.",
        10,
        _infeasible,
    ),
    HealthRule(
        "outer steps rejected",
        "5 in a row",
        "The line search found no step that passes the acceptance test, and the meta-policy did not move.",
        "Raise outer.damping or lower outer.max_kl; more episodes make the data agree with themselves.",
        5,
        _outer_rejected,
    ),
    HealthRule(
        "inner steps rejected",
        "over half of those of 5 meta-iterations",
        "Most policies did not adapt, because the line search found no step that passes the acceptance test.",
        "Raise inner.damping or lower inner.max_kl; more episodes (meta.episodes) make the data less noisy.",
        5,
        _inner_rejected,
    ),
    HealthRule(
        "KL never binds",
        "mean KL below 5 % of the region over 10 meta-iterations",
        "Steps are far shorter than allowed: the damping, not the divergence, decides how far they go.",
        "Lower the damping of these updates, or see why the line search shortens them (Misc/Alpha, Meta/Alpha).",
        10,
        _never_binds,
    ),
    HealthRule(
        "KL always binds while the return falls",
        "KL at least 95 % of the region in 10 meta-iterations, return down by two standard errors",
        "Every step goes to the edge of the region and they lead down: the model is trusted too far.",
        "Lower max_kl, or collect more episodes a task.",
        10,
        _always_binds,
    ),
    HealthRule(
        "linear solves inexact",
        "mean relative residual above 0.1 (inner) or 0.5 (outer) over 10 meta-iterations",
        "Conjugate gradients stop before H⁻¹v is found, so that steps point elsewhere than they should.",
        "Raise the damping, or cg_iterations.",
        10,
        _residual,
    ),
    HealthRule(
        "limit out of reach",
        "cost above the limit in 20 meta-iterations, most updates infeasible or recovering",
        "Updates work on the cost and no policy got below the limit: maybe none can.",
        "Compare cost_limit with what a cautious policy costs, and check estimation.cost_measure.",
        20,
        _out_of_reach,
    ),
    HealthRule(
        "normaliser drift",
        "mean of Misc/NormaliserDrift above 1 over 10 meta-iterations",
        "Observations lie more than a standard deviation from where the normaliser expects them.",
        "Smaller outer steps, or a longer warm-up, let it follow; an observation that grows without end never fits.",
        10,
        _drifts,
    ),
    HealthRule(
        "meta-gradient often bounded",
        "over half of the inner or of the outer updates of 10 meta-iterations",
        "Steps lie where their derivative is unbounded or undefined, and a bounded stand-in took its place.",
        "Usual where constraint and objective are parallel, or nothing costs; more episodes or a higher limit help.",
        10,
        _edges,
    ),
)
