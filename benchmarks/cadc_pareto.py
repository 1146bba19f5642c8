"""Time against quality of finished runs: the front of those that nothing beats, and the plot."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

import plotting

Point = tuple[float, float]
"""Seconds and quality."""


def front(points: Iterable[Point]) -> list[Point]:
    """Returns the points that no other is as good and as quick as, and better or quicker, by time."""
    best: list[Point] = []
    for seconds, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or quality > best[-1][1]:
            best.append((seconds, quality))
    return best


def middle(points: list[Point]) -> Point:
    """Returns the means over seeds."""
    return statistics.fmean(x for x, _ in points), statistics.fmean(y for _, y in points)


def draw(runs: dict[str, list[Point]], strategies: list[str], title: str, path: Path) -> None:
    """Draws a point for each variant, the mean over its seeds, and the seeds as small dots.

    Args:
        runs: seconds and quality of each seed, by variant; a name ends in `@` and a rate in percent.
        strategies: all there may be, in an order that gives each its colour in every plot.
        title: of the plot.
        path: of the svg.
    """
    figure, (axes,) = plotting.new_figure(1, 6.4, 4.2)
    for at, strategy in enumerate(strategies):
        of_strategy = {name: seeds for name, seeds in runs.items() if name.rpartition("@")[0] == strategy}
        if of_strategy:
            _draw_strategy(axes, strategy, of_strategy, f"C{at}")
    _draw_front(axes, [middle(seeds) for seeds in runs.values()])
    axes.set_xscale("log")
    axes.set_ylim(0, None)
    axes.set(xlabel="seconds of factorising, sampling, training and validating", ylabel="test NDCG@10")
    axes.set_title(title)
    plotting.save(figure, path)


def _draw_strategy(axes: Any, strategy: str, runs: dict[str, list[Point]], colour: str) -> None:
    rates = {int(name.rpartition("@")[2]): seeds for name, seeds in runs.items()}
    means = {rate: middle(rates[rate]) for rate in sorted(rates)}
    axes.plot(
        *zip(*means.values(), strict=True), "o-", color=colour, markersize=5, linewidth=0.6, label=strategy
    )
    dots = [point for seeds in rates.values() for point in seeds]
    axes.plot(*zip(*dots, strict=True), ".", color=colour, markersize=3, alpha=0.5)
    for rate, point in means.items():
        axes.annotate(f"{rate} %", point, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)


def _draw_front(axes: Any, points: list[Point]) -> None:
    """Draws what is reached by a time, on to the slowest point."""
    steps = front(points)
    steps.append((max(seconds for seconds, _ in points), steps[-1][1]))
    xs, ys = zip(*steps, strict=True)
    axes.plot(xs, ys, color="0.4", linewidth=1, drawstyle="steps-post", zorder=0, label="front")
