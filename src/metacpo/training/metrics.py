"""What a run logs: the writer of metrics.csv and of the TensorBoard events. tags.py says what the columns mean."""

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from metacpo.run_folder import replacing, writing
from metacpo.training.tags import describe, todays_name

FILE = "metrics.csv"
COUNTERS = ("iteration", "env_steps", "seconds")


class MetricsError(Exception):
    """A metrics.csv that cannot be continued; the message is one line that names the file."""


class MetricsWriter:
    """One row per meta-iteration, in the file before the next one starts. Use it in a `with`.

    Raises RunError where a file cannot be written.
    """

    def __init__(self, run_dir: Path, tags: Sequence[str], resume_at: int = 0):
        """`tags` are the columns; an iteration that does not log one of them leaves its cell empty.

        Rows after iteration `resume_at` are dropped: the run continues there and will write them again. Columns that an
        earlier version did not log are empty in its rows.

        env_steps and seconds then are those of the last row that is left, and `last` is that row, {} before the first.
        """
        self._run_dir, self._path, self._columns = run_dir, run_dir / FILE, [*COUNTERS, *tags]
        header, last = _rewind(self._path, resume_at)
        self.last: Mapping[str, str | np.ndarray] = {todays_name(tag): cell for tag, cell in last.items()}
        self.env_steps, self.seconds = int(last.get("env_steps", 0)), float(last.get("seconds", 0))
        if not {todays_name(tag) for tag in header} <= set(self._columns):
            raise MetricsError(f"{self._path}: its columns are not those that this version logs")
        with writing(run_dir):
            if header and header != self._columns:
                _widen(self._path, self._columns)
            self._file = self._path.open("a", newline="", encoding="utf-8")
            if not header:
                csv.writer(self._file).writerow(self._columns)
            self._events = _Events(run_dir / "tb", resume_at + 1)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        with writing(self._run_dir):
            try:
                self._file.close()
            finally:
                self._events.close()

    def write(self, iteration: int, env_steps: int, seconds: float, row: Mapping[str, np.ndarray]) -> None:
        """Append the numbers of one meta-iteration, as texts that are read back as the same float32."""
        unknown = set(row) - set(self._columns)
        if unknown:
            raise MetricsError(f"{self._path}: has no column for {', '.join(sorted(unknown))}")
        values = {tag: np.asarray(value)[()] for tag, value in row.items()}
        cells = (str(values.get(tag, "")) for tag in self._columns[len(COUNTERS) :])
        with writing(self._run_dir):
            csv.writer(self._file).writerow([iteration, env_steps, f"{seconds:.3f}", *cells])
            self._file.flush()
            self._events.write(iteration, {tag: float(value) for tag, value in values.items()})
        self.env_steps, self.seconds, self.last = env_steps, seconds, row

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        with writing(self._run_dir):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()


def steps_used(run_dir: Path, iteration: int) -> int | None:
    """Environment steps of the iterations 1 to `iteration`; None where metrics.csv has no such row."""
    try:
        with (run_dir / FILE).open(newline="", encoding="utf-8") as file:
            found = [row["env_steps"] for row in csv.DictReader(file) if row.get("iteration") == str(iteration)]
        return int(found[0])
    except (OSError, ValueError, LookupError, TypeError, csv.Error):  # missing or damaged; a text that is not UTF-8
        return None


class _Events:
    """The TensorBoard events of one session, from iteration `first` on.

    Written by the caller's own thread: tensorboardX's writer has another one, and waits for it forever once a full
    disk has ended it.
    """

    FLUSH = 10.0  # seconds

    def __init__(self, folder: Path, first: int):
        folder.mkdir(exist_ok=True)
        # The suffix tells sessions apart that begin within one second.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        start = SessionLog(status=SessionLog.START)  # TensorBoard forgets what earlier sessions wrote from `first` on
        self._writer.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        self._flushed = 0.0

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            if np.isfinite(value):  # TensorBoard has no place for the others; metrics.csv shows them
                about = describe(tag)
                summary = scalar(tag, value, summary_description=f"{about.description} [{about.unit}]")
                self._writer.write_event(Event(wall_time=time.time(), step=iteration, summary=summary))
        if time.monotonic() - self._flushed > self.FLUSH:
            self.flush()

    def flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


def _widen(path: Path, columns: Sequence[str]) -> None:
    """The same rows under today's names and more columns, empty where they have none; the file is replaced whole."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{todays_name(tag): cell for tag, cell in row.items()} for row in csv.DictReader(file)]
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _rewind(path: Path, iteration: int) -> tuple[list[str], dict[str, str]]:
    """Cut the file after the row of `iteration`; its columns, and that row.

    What stands after that row may be half a row, or what a power cut made of it, and is not read.
    """
    if iteration == 0:
        path.unlink(missing_ok=True)
        return [], {}
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise MetricsError(f"{path}: missing") from None
    kept = [line for line in lines[: iteration + 1] if line.endswith(b"\n")]
    if len(kept) <= iteration:
        last = max(len(kept) - 1, 0)
        raise MetricsError(f"{path}: ends at iteration {last}, before the checkpoint of iteration {iteration}")
    try:
        header, *rows = csv.reader(line.decode() for line in kept)
        numbers = [int(row[0]) for row in rows]
        whole = numbers == list(range(1, iteration + 1)) and all(len(row) == len(header) for row in rows)
        last = [float(cell) for cell in rows[-1] if cell]  # what the run goes on from
        whole &= len(last) >= len(COUNTERS) and rows[-1][1].isdecimal()
    except (ValueError, IndexError, csv.Error):  # UnicodeDecodeError is a ValueError
        whole, header, rows = False, [], []
    if not whole:
        raise MetricsError(f"{path}: damaged, its rows are not those of iterations 1 to {iteration}")
    with writing(path.parent):
        os.truncate(path, sum(len(line) for line in kept))
    return header, dict(zip(header, rows[-1], strict=True))
