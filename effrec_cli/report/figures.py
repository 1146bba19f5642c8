"""Numbers as short text for tables; a missing one is a dash."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from effrec_cli.screen import size

MISSING = "-"
_BARS = "▁▂▃▄▅▆▇█"


def score(value: float | None, spread: float | None = None) -> str:
    """Returns a metric to four places, with its standard deviation where there is one."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def seconds(value: float | None) -> str:
    """Returns a time to three digits in the unit that suits it, such as `12.3 s` or `2.05 h`."""
    if value is None:
        return MISSING
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if value >= length:
            return f"{significant(value / length)} {unit}"
    return f"{significant(value * 1000)} ms"


def significant(value: float) -> str:
    """Returns a number to three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def count(value: float | None) -> str:
    """Returns a large number in thousands, millions or more, such as `4.11 M`."""
    if value is None:
        return MISSING
    for unit, step in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= step:
            return f"{significant(value / step)} {unit}"
    return significant(value) if value % 1 else f"{value:.0f}"


def joules(value: float | None) -> str:
    """Returns an energy in joules or a multiple."""
    return MISSING if value is None else f"{count(value)}J"


def memory(value: float | None) -> str:
    """Returns bytes in the unit that suits them."""
    return MISSING if value is None else size(value)


def share(value: float | None) -> str:
    """Returns a share in per cent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of what is there, or None where nothing is."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def deviation(values: Iterable[float | None]) -> float | None:
    """Returns the sample standard deviation, or None below two values."""
    there = [value for value in values if value is not None]
    return statistics.stdev(there) if len(there) > 1 else None


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """Returns a curve as a line of bars, thinned evenly to `width` of them."""
    if not values:
        return ""
    points = (
        [values[round(at * (len(values) - 1) / (width - 1))] for at in range(width)]
        if len(values) > width
        else values
    )
    low, high = min(points), max(points)
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * top) if high > low else 0] for value in points)
