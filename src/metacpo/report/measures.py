"""What a report has curves of: the return, the costs, and each of several constraints by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metacpo.report import style
from metacpo.report.run import Run


@dataclass(frozen=True)
class Measure:
    """One quantity: where the files of a run have it, and what it is called. Empty text: they do not have it."""

    words: str
    unit: str
    column: str  # of adaptation.csv
    tag: str  # of metrics.csv, after the last update
    step_tag: str  # of metrics.csv, after k updates: Adapt/step{k}/...
    limit_column: str = ""
    limit_tag: str = ""

    @property
    def colour(self) -> str:
        return style.RETURN if self.column == "return" else style.COST

    @property
    def noun(self) -> str:
        """In the middle of a sentence."""
        return self.words[:1].lower() + self.words[1:]

    def series(self, run: Run) -> dict[str, np.ndarray]:
        """The series "before" and "after" adaptation over training, as far as the run logged them."""
        before = run.metrics.get(f"Adapt/step0/{self.step_tag}") if run.last_step else None
        after = run.metrics.get(f"Adapt/step{run.last_step}/{self.step_tag}", run.metrics.get(self.tag))
        return {stage: series for stage, series in (("before", before), ("after", after)) if series is not None}


RETURN = Measure("Return", "reward per episode", "return", "Metrics/EpRet", "EpRet")
COSTS = {
    "episode_cost": Measure("Episode cost", "cost per episode", "episode_cost", "Metrics/EpCost", "EpCost"),
    "discounted_cost": Measure(
        "Discounted cost", "per episode", "discounted_cost", "Metrics/DiscountedCost", "DiscountedCost"
    ),
}


def measures_of(runs: Sequence[Run]) -> list[Measure]:
    """Return, both costs, and each of several constraints. Runs of one report are seeds of one setting.

    A limit belongs to one constraint: a sum of several has none.
    """
    measures = [RETURN]
    for column, measure in COSTS.items():
        if runs[0].constraints:
            measures.append(replace(measure, words=f"{measure.words}, sum of the constraints"))
        elif column == runs[0].limited_cost:
            measures.append(replace(measure, limit_column="cost_limit", limit_tag="Metrics/CostLimit"))
        else:
            measures.append(measure)
    return [*measures, *constraint_measures(runs)]


def constraint_measures(runs: Sequence[Run]) -> list[Measure]:
    """The limited cost of each of several constraints, by name; [] for runs with one."""
    general = COSTS[runs[0].limited_cost]
    return [
        Measure(
            words=f"{general.words} of {name}",
            unit=general.unit,
            column=f"cost/{name}",
            tag=f"{general.tag}/{name}",
            step_tag=f"{general.step_tag}/{name}",
            limit_column=f"cost_limit/{name}",
            limit_tag=f"Metrics/CostLimit/{name}",
        )
        for name in runs[0].constraints
    ]


def limited_measures(runs: Sequence[Run]) -> list[Measure]:
    """The costs that have limits in adaptation.csv: each constraint's where it has columns, else the one of all."""
    columns = runs[0].adaptation.numbers
    each = [
        measure for measure in constraint_measures(runs) if {measure.column, measure.limit_column} <= columns.keys()
    ]
    return each or [measure for measure in measures_of(runs) if measure.column == runs[0].limited_cost]
