"""Which windows to pad to one width: a few rectangles that hold them all with little padding."""

from __future__ import annotations

from collections import Counter

Rectangle = tuple[int, int]
"""Windows, and their width."""

STEP = 4
"""Widths are multiples of this: fewer to choose from."""

CALL = 24
"""Positions that cost as much time as one more rectangle does, for attention runs once for each."""


def fitted(lengths: list[int], widest: int) -> list[Rectangle]:
    """Returns the rectangles, narrow first, that hold these windows at the least cost.

    The cost of a rectangle is its positions and `CALL` more; the least is found exactly, by dynamic
    programming over the widths that occur.

    Args:
        lengths: of the windows, ascending, 1 or more each; any number of windows.
        widest: no rectangle needs to be wider.
    """
    found = Counter(min(widest, -(-max(1, length) // STEP) * STEP) for length in lengths)
    widths = sorted(found)
    least, cut = [0], [0]
    for end, width in enumerate(widths, 1):
        windows, costs = 0, dict[int, int]()
        for start in reversed(range(end)):
            windows += found[widths[start]]
            costs[start] = least[start] + windows * width + CALL
        best = min(costs, key=costs.__getitem__)
        least.append(costs[best])
        cut.append(best)
    return _read_back(found, widths, cut)


def _read_back(found: Counter[int], widths: list[int], cut: list[int]) -> list[Rectangle]:
    rectangles, end = [], len(widths)
    while end:
        windows = sum(found[width] for width in widths[cut[end] : end])
        rectangles.append((windows, widths[end - 1]))
        end = cut[end]
    return rectangles[::-1]
