"""What a person sees of a running training: a live table on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

PLAIN_INTERVAL = 10.0  # seconds between two plain lines


@dataclass(frozen=True)
class ShownCost:
    """The cost that a limit limits; `name` of its constraint."""

    name: str
    cost: float
    limit: float


@dataclass(frozen=True)
class Row:
    """The numbers of one meta-iteration that are shown; one entry of costs a constraint.

    env_steps of planned_steps are used so far; where episodes end early, fewer than planned are used to the end.
    """

    iteration: int
    iterations: int
    env_steps: int
    planned_steps: int
    steps_per_second: float
    episode_return: float
    costs: tuple[ShownCost, ...]
    kl: float
    case: str
    seconds_left: float

    @property
    def cells(self) -> dict[str, str]:
        """Heading and text of every column."""
        return {
            "iteration": f"{self.iteration}/{self.iterations}",
            "steps": counted(self.env_steps, self.planned_steps),
            "steps/s": f"{self.steps_per_second:,.0f}",
            "return": f"{self.episode_return:.2f}",
            **{heading: text for each in self.costs for heading, text in self._cost_cells(each).items()},
            "KL": f"{self.kl:.4f}",
            "case": self.case,
            "time left": clock(self.seconds_left),
        }

    @property
    def styles(self) -> dict[str, str]:
        """The colour of every cost by its heading: whether it is within its limit."""
        return {f"cost{self._of(each)}": "green" if each.cost <= each.limit else "red" for each in self.costs}

    def _cost_cells(self, each: ShownCost) -> dict[str, str]:
        of = self._of(each)
        return {f"cost{of}": f"{each.cost:.2f}", f"limit{of}": f"{each.limit:g}"}

    def _of(self, each: ShownCost) -> str:
        """What tells the headings of several constraints apart."""
        return f" {each.name}" if len(self.costs) > 1 else ""


class LiveProgress:
    """One table that is redrawn in place."""

    def __init__(self, console: Console):
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, row: Row) -> None:
        table = Table(*map(_heading, row.cells), box=None, header_style="dim", pad_edge=False)
        table.add_row(*(Text(text, row.styles.get(name, "")) for name, text in row.cells.items()))
        self._live.update(table, refresh=True)


def _heading(name: str) -> Column:
    return Column(Text(name))  # a constraint's name is no markup


class PlainProgress:
    """A line for the first row, for the last one, and every ten seconds between them: for files and pipes."""

    def __init__(self, console: Console):
        self._console = console
        self._last = -PLAIN_INTERVAL

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *error: object) -> None: ...

    def show(self, row: Row) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_INTERVAL and row.iteration < row.iterations:
            return
        self._last = now
        line = "  ".join(f"{name} {text}" for name, text in row.cells.items())
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def progress(console: Console) -> LiveProgress | PlainProgress:
    """The display that suits where the output goes."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(used: int, total: int) -> str:
    """Steps used of a total, in the total's unit: "1.9/9.1 M"."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if total >= size:
            return f"{used / size:.1f}/{total / size:.1f} {unit}"
    return f"{used}/{total}"
