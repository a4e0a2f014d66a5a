"""How far a mean or a share over tasks can be trusted: 95 % intervals, by NumPy and SciPy alone.

The tasks are the sample: the episodes of one task share its parameters, so only the spread between tasks says what
another draw of them would give.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
RESAMPLES = 4000  # the ends of an interval then have a noise of a twentieth of its width


class Interval(NamedTuple):
    """Both ends, in the units of what they are about; NaN where the sample says nothing."""

    low: float
    high: float


def mean_interval(values: ArrayLike, seed: int = 0) -> Interval:
    """Of the mean of independent values: the BCa bootstrap (Efron 1987), which never leaves the values' range.

    Costs and shares are skewed and bounded, and an interval symmetric about the mean would promise costs below 0.
    NaN for fewer than two values or any that is not finite; one point where all are equal.
    """
    sample = np.asarray(values, float)
    if sample.size < 2 or not np.all(np.isfinite(sample)):
        return Interval(math.nan, math.nan)
    if np.ptp(sample) == 0:
        return Interval(float(sample[0]), float(sample[0]))
    from scipy.stats import DegenerateDataWarning, bootstrap  # only whoever wants an interval waits for SciPy

    random = np.random.default_rng(seed)
    with warnings.catch_warnings():  # of values that differ by their last digit alone: NaN says it
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, random_state=random)
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def share_interval(successes: int, trials: int) -> Interval:
    """Of a share of independent trials: Wilson's, which stays within [0, 1] for few of them. [0, 1] without any."""
    if trials == 0:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


def share_beyond_worst(trials: int) -> float:
    """The share of tasks that may be worse than the worst of `trials`, with 95 % confidence at most.

    A maximum has no interval from one sample. But all draws miss a share p of the tasks with probability (1 − p)ⁿ,
    which is 5 % at p = 1 − 0.05^(1/n). 1 without any trial.
    """
    return 1.0 if trials == 0 else 1.0 - (1.0 - LEVEL) ** (1.0 / trials)
