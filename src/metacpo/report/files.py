"""Text files of a run folder as columns of numbers. Whatever is damaged is named in one line, by `ReportError`."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

LARGEST = float(np.finfo(np.float32).max)  # of a finite number in a run


class ReportError(Exception):
    """A run folder cannot be reported; the message is one line that names the file."""


def read_text(path: Path) -> str:
    """A file's text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path}: missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({error})") from None


def read_rows(path: Path, required: Sequence[str], may_be_empty: bool = False) -> tuple[list[str], list[list[str]]]:
    """A CSV file's header and rows; every row as long as the header, every required column present."""
    try:
        header, *rows = csv.reader(read_text(path).splitlines(), strict=True)
    except (ValueError, csv.Error):
        raise ReportError(f"{path}: not a CSV file with a header") from None
    missing = [column for column in required if column not in header]
    if missing:
        raise ReportError(f"{path}: no column {', '.join(missing)}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ReportError(f"{path}: line {line} has {len(row)} cells, the header has {len(header)}")
    if not rows and not may_be_empty:
        raise ReportError(f"{path}: no rows")
    return header, rows


def columns_of(path: Path, header: list[str], rows: list[list[str]]) -> dict[str, np.ndarray]:
    """The named columns as numbers; the header gives each column's place in a row."""
    return {name: numbers(path, name, (row[place] for row in rows)) for place, name in enumerate(header)}


def numbers(path: Path, column: str, cells: Iterator[str]) -> np.ndarray:
    """A column as floats; an empty cell (a tag that one iteration did not log) is NaN."""
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError:
            raise ReportError(f"{path}: line {line}: {column} is {cell!r}, not a number") from None
        if LARGEST < abs(value) < math.inf:
            raise ReportError(f"{path}: line {line}: {column} is {cell}, no number of a run (float32)")
        values.append(value)
    return np.array(values)


def check_whole(path: Path, column: str, values: np.ndarray) -> None:
    """Raises ReportError unless every value is a whole number."""
    if np.any(~(np.abs(values) < 2**53) | (values != np.floor(values))):
        raise ReportError(f"{path}: {column} must be a whole number in every row")


def check_flags(path: Path, column: str, values: np.ndarray) -> None:
    """Raises ReportError unless every value is 0 or 1."""
    if not np.isin(values, (0, 1)).all():
        raise ReportError(f"{path}: {column} must be 0 or 1 in every row")
