"""What a person sees of a running training: a live table on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

PLAIN_INTERVAL = 10.0  # seconds between two plain lines


@dataclass(frozen=True)
class Row:
    """The numbers of one meta-iteration that are shown; cost is the one that cost_limit limits.

    env_steps of planned_steps are used so far; where episodes end early, fewer than planned are used to the end.
    """

    iteration: int
    iterations: int
    env_steps: int
    planned_steps: int
    steps_per_second: float
    episode_return: float
    cost: float
    cost_limit: float
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
            "cost": f"{self.cost:.2f}",
            "limit": f"{self.cost_limit:g}",
            "KL": f"{self.kl:.4f}",
            "case": self.case,
            "time left": clock(self.seconds_left),
        }


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
        table = Table(*row.cells, box=None, header_style="dim", pad_edge=False)
        style = "green" if row.cost <= row.cost_limit else "red"
        table.add_row(*(f"[{style}]{text}[/]" if name == "cost" else text for name, text in row.cells.items()))
        self._live.update(table, refresh=True)


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
        self._console.print(line, soft_wrap=True, highlight=False)


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
