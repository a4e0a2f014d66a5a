"""Whether a value that someone else's code gave is one number, or one truth. Nothing is converted to become one."""

import numbers

import numpy as np

LONGEST = 80  # characters of a value in a message


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
