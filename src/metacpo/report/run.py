"""What a report knows about one run: the tables of its folder, typed. Reading them is `read.py`'s."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metacpo.shapes import Scene
from metacpo.training.tags import LIMITED_COLUMN, LIMITED_COST

STEP_TAG = re.compile(r"Adapt/step(\d+)/EpRet")
DEFAULT_MEASURE = "episode"
LIMIT_OF = {"adaptation": "cost_limit/", "metrics": "Metrics/CostLimit/"}  # then the constraint's name


@dataclass(frozen=True)
class Adaptation:
    """`adaptation.csv` by column; one entry per (split, task, step)."""

    split: tuple[str, ...]
    numbers: dict[str, np.ndarray]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits in the file's order, each once."""
        return tuple(dict.fromkeys(self.split))

    def grid(self, split: str, column: str) -> np.ndarray:
        """One column of one split as [tasks, steps]; NaN where a task was not evaluated at a step."""
        rows = np.array([name == split for name in self.split])
        tasks, task = np.unique(self.numbers["task"][rows], return_inverse=True)
        steps, step = np.unique(self.numbers["step"][rows], return_inverse=True)
        grid = np.full((len(tasks), len(steps)), np.nan)
        grid[task, step] = self.numbers[column][rows]
        return grid

    def steps(self, split: str) -> np.ndarray:
        """The numbers of updates after which the split was evaluated, ascending."""
        rows = np.array([name == split for name in self.split])
        return np.unique(self.numbers["step"][rows])


@dataclass(frozen=True)
class Trace:
    """One episode's path, seen from above, in the order of time."""

    split: str
    task: int
    stage: str  # "before" or "after" adaptation
    episode: int
    position: np.ndarray  # [T, 2] m
    unsafe: np.ndarray | None  # [T] whether the step had cost; None where the run does not tell


@dataclass(frozen=True)
class Run:
    """Everything that a report says about one run."""

    path: Path
    config: dict[str, Any]
    config_text: str
    metrics: dict[str, np.ndarray]
    adaptation: Adaptation
    traces: tuple[Trace, ...] | None
    # By (split, task): the floor of each episode, or one that all of them share.
    scenes: dict[tuple[str, int], tuple[Scene, ...]]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def setting(self, dotted: str, default: Any = None) -> Any:
        """A setting by its dotted name, such as `meta.steps`; the default where any part is missing."""
        value: Any = self.config
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def scene(self, split: str, task: int, episode: int) -> Scene:
        """What was on the floor when an episode began; nothing where the run does not tell."""
        scenes = self.scenes.get((split, task), ())
        if not scenes:
            return ()
        return scenes[episode] if 0 <= episode < len(scenes) else scenes[0]

    @property
    def limited_cost(self) -> str:
        """The column of `adaptation.csv` that `cost_limit` limits."""
        return LIMITED_COLUMN[self._cost_measure]

    @property
    def limited_tag(self) -> str:
        """The tag of `metrics.csv` that `Metrics/CostLimit` limits."""
        return LIMITED_COST[self._cost_measure]

    @property
    def _cost_measure(self) -> str:
        """The run's; the default where its settings name no measure, as a stranger's may."""
        measure = self.setting("estimation.cost_measure")
        return measure if isinstance(measure, str) and measure in LIMITED_COST else DEFAULT_MEASURE

    @property
    def constraints(self) -> tuple[str, ...]:
        """The names of the constraints where a run has several and logs each; () otherwise."""
        found = {}
        for table, columns in (("adaptation", self.adaptation.numbers), ("metrics", self.metrics)):
            start = LIMIT_OF[table]
            found |= dict.fromkeys(column.removeprefix(start) for column in columns if column.startswith(start))
        return tuple(found)

    @property
    def last_step(self) -> int:
        """K, the number of inner updates per meta-iteration, as the tags of `metrics.csv` tell it."""
        found = [STEP_TAG.fullmatch(tag) for tag in self.metrics]
        return max((int(match[1]) for match in found if match), default=0)
