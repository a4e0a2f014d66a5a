"""What a run logs: the meaning of every tag, and the writer of metrics.csv and the TensorBoard events."""

import csv
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from metacpo.folder import replacing, writing

FILE = "metrics.csv"
COUNTERS = ("iteration", "env_steps", "seconds")


class MetricsError(Exception):
    """A metrics.csv that cannot be continued; the message is one line that names the file."""


@dataclass(frozen=True)
class Tag:
    """The unit of a logged number and what it says. "adapted" is after the last inner step, φ^K."""

    unit: str
    description: str


# {k} stands for the number of an inner step, {case} for a name of metacpo.solver.Case.
TAGS = {
    "Metrics/EpRet": Tag("return", "Mean undiscounted return of an episode, adapted."),
    "Metrics/EpCost": Tag("cost", "Mean undiscounted cost of an episode, adapted."),
    "Metrics/DiscountedCost": Tag("cost", "Mean discounted cost of an episode, adapted."),
    "Metrics/CostLimit": Tag("cost", "Mean limit of the tasks, on the cost measure of the run."),
    "Metrics/SatisfiedFraction": Tag("1", "Share of the tasks whose adapted cost is within the limit."),
    "Metrics/SatisfiedWhileAdapting": Tag("1", "Share of the policies before the last update within the limit."),
    "Metrics/ExcessWhileAdapting": Tag("cost", "Cost above the limit, summed over policies before the last update."),
    "Metrics/EpLen": Tag("steps", "Mean length of an episode."),
    "Metrics/NonFinite": Tag("worlds", "Worlds left out because something in them was not finite."),
    "Train/KL": Tag("nat", "Mean KL divergence of an inner update."),
    "Train/PolicyStd": Tag("action", "Mean standard deviation of the meta-policy's actions."),
    "Train/CostPromised": Tag("cost", "Mean change of the limited cost that an inner update's surrogate predicts."),
    "Train/CostRealised": Tag("cost", "Mean change of the limited cost that came true in the next batch."),
    "Train/ReturnPromised": Tag("return", "Mean change of the return that an inner update's surrogate predicts."),
    "Train/ReturnRealised": Tag("return", "Mean change of the return that came true in the next batch."),
    "Meta/KL": Tag("nat", "KL divergence of the outer update."),
    "Meta/TrustRegion": Tag("nat", "Size of the outer update's trust region."),
    "Meta/Case": Tag("case", "Case of the outer step, the number of a metacpo.solver.Case."),
    "Meta/Accepted": Tag("1", "1 if the line search accepted the outer step."),
    "Meta/Alpha": Tag("1", "Factor of the outer step that the line search chose."),
    "Meta/CGResidual": Tag("1", "Relative residual of conjugate gradients in the outer step."),
    "Meta/Edge": Tag("1", "1 if the outer step's derivative is at an edge where it was bounded."),
    "Meta/NonFinite": Tag("1", "1 if a task's meta-gradient or the outer step was not finite: dropped."),
    "Meta/ReturnPromised": Tag("return", "Change of the adapted return that the outer update before promised."),
    "Meta/ReturnRealised": Tag("return", "Change of the adapted return since then, on other tasks."),
    "Meta/CostPromised": Tag("cost", "Change of the limited adapted cost that the outer update before promised."),
    "Meta/CostRealised": Tag("cost", "Change of the limited adapted cost since then, on other tasks."),
    "Meta/AgreementReturn": Tag("1", "Cosine between two halves of the tasks' meta-gradients of the objective."),
    "Meta/AgreementCost": Tag("1", "The same of the constraints' meta-gradients, mean over them."),
    "Meta/SignalReturn": Tag("1", "Share of a pooled gradient's square that is signal; 1 through inner steps."),
    "Meta/SignalCost": Tag("1", "The same of the constraints' gradients, mean over them."),
    "Meta/StepScale": Tag("1", "Meta-learned factor on the size of the inner steps."),
    "Metrics/LagrangeMultiplier": Tag("reward/cost", "Lagrange multiplier (its integral part), mean over constraints."),
    "Misc/CostShare": Tag("1", "Mean share of the cost in what the inner updates lower; ν/(1 + ν) for a multiplier."),
    "Misc/SignalReturn": Tag("1", "Mean share of an inner gradient's square that is signal, by halves of a batch."),
    "Misc/SignalCost": Tag("1", "The same of the constraints' gradients."),
    "Misc/Rejected": Tag("updates", "Inner updates that the line search rejected."),
    "Misc/Edge": Tag("updates", "Inner updates whose derivative is at an edge where it was bounded."),
    "Misc/NonFiniteUpdates": Tag("updates", "Inner updates rejected because a number was not finite, or H singular."),
    "Misc/CriticNonFinite": Tag("critics", "Critics, one per signal and batch, that were not finite and counted as 0."),
    "Misc/TasksLeftOut": Tag("tasks", "Tasks without a share in the outer update: no valid step, or a bad number."),
    "Misc/ObservationsLeftOut": Tag("observations", "Observations too large for the normaliser, which did without."),
    "Misc/NormaliserDrift": Tag(
        "1", "Distance of the mean observation to the normaliser's, in its standard deviations."
    ),
    "Misc/CGResidual": Tag("1", "Mean relative residual of conjugate gradients in the inner updates."),
    "Misc/TrustRegion": Tag("nat", "Mean size of the inner updates' trust regions."),
    "Misc/Alpha": Tag("1", "Mean factor that the line search chose in the inner updates."),
    "Misc/Case/{case}": Tag("updates", "Inner updates that ended in this case of the constrained step."),
    "Adapt/step{k}/EpRet": Tag("return", "Mean undiscounted return of an episode after k inner updates."),
    "Adapt/step{k}/EpCost": Tag("cost", "Mean undiscounted cost of an episode after k inner updates."),
    "Adapt/step{k}/DiscountedCost": Tag("cost", "Mean discounted cost of an episode after k inner updates."),
    "Adapt/step{k}/CostPromised": Tag("cost", "Change of the limited cost that inner update k promised."),
    "Adapt/step{k}/CostRealised": Tag("cost", "Change of the limited cost that came true in the batch after it."),
    "Adapt/step{k}/ReturnPromised": Tag("return", "Change of the return that inner update k promised."),
    "Adapt/step{k}/ReturnRealised": Tag("return", "Change of the return that came true in the batch after it."),
}


def describe(tag: str) -> Tag:
    """The entry of TAGS for a column of metrics.csv. Raises KeyError for a tag that nobody has described."""
    general = re.sub(r"^Adapt/step\d+/", "Adapt/step{k}/", tag)
    return TAGS[re.sub(r"^Misc/Case/\w+$", "Misc/Case/{case}", general)]


class MetricsWriter:
    """One row per meta-iteration, in the file before the next one starts. Use it in a `with`.

    Raises RunError where a file cannot be written.
    """

    def __init__(self, run_dir: Path, tags: Sequence[str], resume_at: int = 0):
        """`tags` are the columns; an iteration that does not log one of them leaves its cell empty.

        Rows after iteration `resume_at` are dropped: the run continues there and will write them again. Columns that an
        earlier version did not log are empty in its rows.

        env_steps and seconds then are those of the last row that is left.
        """
        self._run_dir, self._path, self._columns = run_dir, run_dir / FILE, [*COUNTERS, *tags]
        header, self.env_steps, self.seconds = _rewind(self._path, resume_at)
        if not set(header) <= set(self._columns):
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
        self.env_steps, self.seconds = env_steps, seconds

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
    """The same rows under more columns, empty where they have none; the file is replaced as a whole."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with replacing(path) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _rewind(path: Path, iteration: int) -> tuple[list[str], int, float]:
    """Cut the file after the row of `iteration`; its columns, and env_steps and seconds of that row.

    What stands after that row may be half a row, or what a power cut made of it, and is not read.
    """
    if iteration == 0:
        path.unlink(missing_ok=True)
        return [], 0, 0.0
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
        env_steps, seconds = int(rows[-1][1]), float(rows[-1][2])
        whole = numbers == list(range(1, iteration + 1)) and all(len(row) == len(header) for row in rows)
    except (ValueError, IndexError, csv.Error):  # UnicodeDecodeError is a ValueError
        whole, header, env_steps, seconds = False, [], 0, 0.0
    if not whole:
        raise MetricsError(f"{path}: damaged, its rows are not those of iterations 1 to {iteration}")
    with writing(path.parent):
        os.truncate(path, sum(len(line) for line in kept))
    return header, env_steps, seconds
