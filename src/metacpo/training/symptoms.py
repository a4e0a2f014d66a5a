"""What rows of metrics.csv show when something is wrong: the conditions that the health rules look for. No JAX here.

Each gets the columns of the rows that it looks at and the tag of the cost that the limit limits. None holds where a
column that it needs is missing or empty (a warm-up has no inner updates).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from metacpo.training.tags import limit_of

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


def counted(tag: str) -> Callable[[Columns, str], bool]:
    return lambda columns, cost: _have(columns, tag) and bool(np.any(columns[tag] > 0))


def too_large(columns: Columns, cost: str) -> bool:
    """Whether returns or costs are so large that what is computed from them is not finite."""
    return any(tag in columns and bool(np.any(np.abs(columns[tag]) > LARGEST_SUM)) for tag in SUMS)


def lost(tag: str) -> Callable[[Columns, str], bool]:
    """As `counted`, of what is not simply too large: that has a rule and a remedy of its own."""
    return lambda columns, cost: counted(tag)(columns, cost) and not too_large(columns, cost)


def infeasible(columns: Columns, cost: str) -> bool:
    return _share(columns, "INFEASIBLE") > 0.5


def outer_rejected(columns: Columns, cost: str) -> bool:
    return _have(columns, "Meta/Accepted") and bool(np.all(columns["Meta/Accepted"] == 0))


def inner_rejected(columns: Columns, cost: str) -> bool:
    inner = [f"Misc/Case/{case}" for case in CASES]
    if not _have(columns, "Misc/Rejected", *inner):
        return False
    return bool(np.sum(columns["Misc/Rejected"]) > 0.5 * sum(np.sum(columns[tag]) for tag in inner))


def _regions(columns: Columns) -> list[np.ndarray]:
    """KL as a share of the trust region, of the outer updates and of the inner ones."""
    pairs = (("Meta/KL", "Meta/TrustRegion"), ("Train/KL", "Misc/TrustRegion"))
    return [columns[kl] / np.maximum(columns[size], 1e-12) for kl, size in pairs if _have(columns, kl, size)]


def never_binds(columns: Columns, cost: str) -> bool:
    return any(bool(np.mean(share) < 0.05) for share in _regions(columns))


def always_binds(columns: Columns, cost: str) -> bool:
    if not _have(columns, "Metrics/EpRet"):
        return False
    before, after = np.split(columns["Metrics/EpRet"], 2)
    noise = np.sqrt((np.var(before) + np.var(after)) / len(after))
    falls = np.mean(before) - np.mean(after) > 2 * noise
    return bool(falls) and any(bool(np.all(share >= 0.95)) for share in _regions(columns))


def solves_inexact(columns: Columns, cost: str) -> bool:
    # Derivatives go through the inner solves; the outer one gives a direction alone, which the line search judges.
    most = {"Misc/CGResidual": 0.1, "Meta/CGResidual": 0.5}
    return any(_have(columns, tag) and bool(np.mean(columns[tag]) > size) for tag, size in most.items())


def out_of_reach(columns: Columns, cost: str) -> bool:
    if not _have(columns, cost, limit_of(cost)):
        return False
    above = np.all(columns[cost] > columns[limit_of(cost)])
    return bool(above) and _share(columns, "INFEASIBLE", "RECOVERING") > 0.5


def drifts(columns: Columns, cost: str) -> bool:
    return _have(columns, "Misc/NormaliserDrift") and bool(np.mean(columns["Misc/NormaliserDrift"]) > 1)


def derivatives_bounded(columns: Columns, cost: str) -> bool:
    inner = [f"Misc/Case/{case}" for case in CASES]
    if _have(columns, "Meta/DerivativeClipped") and np.mean(columns["Meta/DerivativeClipped"]) > 0.5:
        return True
    return _have(columns, "Misc/DerivativeClipped", *inner) and bool(
        np.sum(columns["Misc/DerivativeClipped"]) > 0.5 * sum(np.sum(columns[tag]) for tag in inner)
    )
