"""What the outer updates predicted, beside what came of it in the next meta-iteration: computed where rows are logged.

An update predicts how its data's return and cost will change; the next iteration's data judge it, on other tasks. So
a row has its own update's prediction (`Meta/NextReturnPredicted`), and that of the row before with what came true
(`Meta/ReturnPredicted`, `Meta/ReturnActual`). A run that goes on finds both in the last row of its metrics.csv: its
state holds nothing that training does not need.
"""

from collections.abc import Mapping

import numpy as np

from metacpo.training.tags import LIMITED_COST

Row = Mapping[str, str | np.ndarray]  # as it is in metrics.csv, or as it was computed
QUANTITIES = ("Return", "Cost")
TAGS = tuple(f"Meta/{quantity}{kind}" for quantity in QUANTITIES for kind in ("Predicted", "Actual"))
UNKNOWN = np.float32(np.nan)


def beside_actual(before: Row, steps_before: int, row: Row, steps: int, cost_measure: str) -> dict[str, np.ndarray]:
    """TAGS of a row after the row `before`, whose iterations adapt by so many updates; NaN after no row."""
    now, then = _adapted(row, steps, cost_measure), _adapted(before, steps_before, cost_measure)
    found = {}
    for quantity in QUANTITIES:
        found[f"Meta/{quantity}Predicted"] = _number(before, f"Meta/Next{quantity}Predicted")
        found[f"Meta/{quantity}Actual"] = now[quantity] - then[quantity]
    return {tag: np.asarray(value) for tag, value in found.items()}


def _adapted(row: Row, steps: int, cost_measure: str) -> dict[str, np.float32]:
    """Return and limited cost of the adapted policies, means over tasks."""
    cost = LIMITED_COST[cost_measure].removeprefix("Metrics/")
    return {
        "Return": _number(row, f"Adapt/step{steps}/EpRet"),
        "Cost": _number(row, f"Adapt/step{steps}/{cost}"),
    }


def _number(row: Row, tag: str) -> np.float32:
    """A cell as the float32 that it is; one that an earlier version did not log, or left empty, is not known."""
    cell = row.get(tag, "")
    return UNKNOWN if isinstance(cell, str) and not cell else np.float32(cell)
