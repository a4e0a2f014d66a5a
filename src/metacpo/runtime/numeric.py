"""Whether a value that someone else's code gave is one number, or one truth. Nothing is converted to become one."""

import numbers
import sys
from dataclasses import dataclass

import numpy as np

LONGEST = 80  # characters of a value in a message
SMALLEST = float(np.finfo(np.float32).tiny)  # below it a float32 is 0: compiled programs have no subnormal numbers


@dataclass(frozen=True)
class Range:
    """The interval that a setting must lie in, on its field: gamma: Annotated[float, Range("(0, 1]")] = 0.99.

    One notation for the check and for the message. Of a list every number lies in it.
    """

    interval: str


def one_number(value: object) -> float | None:
    """`value` if it is one real number: Python's, NumPy's or an array without axes. None for anything else.

    True and False are no numbers here. Raises OverflowError for a whole number that no float can hold.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    array = _without_axes(value)
    return float(array) if array is not None and array.dtype.kind in "iuf" else None


def one_truth(value: object) -> bool | None:
    """`value` if it is true or false: Python's, NumPy's or an array without axes. None for anything else."""
    if isinstance(value, bool):
        return value
    array = _without_axes(value)
    return bool(array) if array is not None and array.dtype.kind == "b" else None


def real_array(value: object) -> np.ndarray | None:
    """`value` as an array of real numbers; None where it is none (text, complex numbers, None)."""
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else None


def shown(value: object) -> str:
    """The value in a message: one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number of too many digits, or a repr of someone else's that fails
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _without_axes(value: object) -> np.ndarray | None:
    return np.asarray(value) if getattr(value, "shape", None) == () else None


def single_of(value: float | int) -> float:
    """The float32 next to a number as a processor has it: infinite above 3.4e38, 0 below 1.2e-38."""
    with np.errstate(over="ignore", under="ignore"):
        single = float(np.float32(value))
    return single if abs(single) >= SMALLEST else 0.0


def within(value: float | int, allowed: str) -> bool:
    """Whether a number lies in an interval such as "(0, 1]"; NaN lies in none."""
    low, high = (float(end) for end in allowed[1:-1].split(","))
    if abs(value) >= sys.float_info.max:  # of infinities, and of whole numbers that no float holds
        return False
    above = value > low if allowed[0] == "(" else value >= low
    return above and (value < high if allowed[-1] == ")" else value <= high)


def not_single(value: float | int, allowed: str) -> str | None:
    """What is wrong with a number where programs compute in float32: it does not lie in the interval there, or is 0
    though it was not. None if nothing is."""
    single = single_of(value)
    if not within(single, allowed) or (single == 0) != (value == 0):
        return f"is {single:g} in float32, which is what programs compute in; allowed: {allowed}"
    return None
