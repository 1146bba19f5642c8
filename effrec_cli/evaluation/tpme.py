"""TPME: training time, parameters and memory of several methods as one number; lower is better.

papers/iisan section 3, after IISAN's equations 6 to 10. The value depends on the set of methods compared, so
it has a meaning only inside one table measured on one device at one precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TIME_SHARE, PARAMETER_SHARE, MEMORY_SHARE = 0.45, 0.10, 0.45


def tpme(
    seconds_per_epoch: Sequence[float],
    trainable_parameters: Sequence[float],
    peak_memory_bytes: Sequence[float],
    shares: tuple[float, float, float] = (TIME_SHARE, PARAMETER_SHARE, MEMORY_SHARE),
) -> list[float]:
    """Returns one value in [0, 1] for each method: 1 is the worst on every axis, 0 the best on every axis.

    Each axis is scaled to [0, 1] over the methods, x -> (x - min) / (max - min), and the three are averaged
    with `shares`. An axis on which all methods are equal is undefined there and counts as 0. One-off costs,
    such as filling a cache, are not in the time of an epoch.

    Args:
        seconds_per_epoch: training time T of each method.
        trainable_parameters: P of each method.
        peak_memory_bytes: M of each method.
        shares: weights of time, parameters and memory; none negative, in all 1.

    Raises:
        ValueError: the axes differ in length, a value is not finite, or the shares are not as said.
    """
    axes = (seconds_per_epoch, trainable_parameters, peak_memory_bytes)
    if len({len(axis) for axis in axes}) != 1:
        raise ValueError(f"every method needs all three figures, got {[len(axis) for axis in axes]}")
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise ValueError(f"shares must be non-negative and sum to 1, got {shares}")
    scaled = [_scaled(axis) for axis in axes]
    return [math.fsum(s * x for s, x in zip(shares, row, strict=True)) for row in zip(*scaled, strict=True)]


def _scaled(axis: Sequence[float]) -> list[float]:
    """Returns the axis on [0, 1], or zeros where all its values are equal."""
    if not all(math.isfinite(value) for value in axis):
        raise ValueError(f"a figure is not finite: {list(axis)}")
    low, high = min(axis, default=0), max(axis, default=0)
    if low == high:
        return [0.0] * len(axis)
    return [(value - low) / (high - low) for value in axis]
