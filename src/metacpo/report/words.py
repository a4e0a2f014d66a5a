"""Numbers as people read them, in tables, captions and pictures."""

import math
from collections.abc import Callable
from html import escape

from matplotlib.ticker import EngFormatter

from metacpo.statistics import Interval


def number(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes; a thin space parts thousands."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", "−")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def whole(value: float) -> str:
    """A count with all its digits, as far as they mean something."""
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) < 1e15 else number(value)


def short(count: float) -> str:
    """A large count as the axes have it: 25k, 1.2M."""
    return EngFormatter(sep="")(float(f"{count:.3g}")) if math.isfinite(count) else number(count)


def percent(share: float) -> str:
    """Whole percent; a share that is small but not zero says so."""
    if not math.isfinite(share):
        return "not finite"
    return "under 1\u00a0%" if 0 < share < 0.005 else f"{100 * share:.0f}\u00a0%"


def signed(excess: float) -> str:
    """A cost above its limit, or below."""
    return f"+{number(excess)}" if excess > 0 and math.isfinite(excess) else number(excess)


def limit_words(limits: tuple[float, float]) -> str:
    """The smallest and the largest limit among some tasks."""
    low, high = limits
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def count_words(count: int, noun: str) -> str:
    """`1 hazard`, `2 hazards`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def change(adapts: bool, before: str, after: str) -> str:
    """`before → after` as HTML; a single value where the run does not adapt."""
    if not adapts:
        return f"<b>{after}</b>"
    return f'<span class="before">{before}</span> → <b>{after}</b>'


def aside(text: str) -> str:
    """A small remark beside a figure of a table, as HTML."""
    return f'<span class="aside">{escape(text)}</span>'


def interval_words(interval: Interval, words: Callable[[float], str] = number) -> str:
    """An interval's ends; empty where there is none."""
    if not all(math.isfinite(end) for end in interval):
        return ""
    return f"{words(interval.low)} to {words(interval.high)} (95\u00a0% interval)"
