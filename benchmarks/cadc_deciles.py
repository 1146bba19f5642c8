"""Quality of finished runs by deciles of training rows, as Markdown tables."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from effrec_cli.report.figures import score
from effrec_cli.report.layout import Column, Table, as_markdown

METRIC = "ndcg@10"
_TITLES = {
    "users": "Test NDCG@10 by the training rows of the user",
    "items": "Test NDCG@10 by the training rows of the target",
}

Deciles = dict[str, list[dict[str, Any]]]
"""`by_frequency` of a result."""


def tables(runs: dict[str, list[Deciles]]) -> str:
    """Returns a table by users and one by items: a line for each variant, the mean over its seeds.

    Args:
        runs: of each seed, by variant.

    Raises:
        SystemExit: the runs have other deciles than each other, since they are of several datasets.
    """
    return "\n\n".join(as_markdown(_table(side, runs)) for side in _TITLES)


def _table(side: str, runs: dict[str, list[Deciles]]) -> Table:
    first = next(iter(runs.values()))[0][side]
    if any(_shape(seed[side]) != _shape(first) for seeds in runs.values() for seed in seeds):
        raise SystemExit(f"The runs have unlike deciles of {side}: they are not of one dataset.")
    means = {name: _means([seed[side] for seed in seeds]) for name, seeds in runs.items()}
    rows = [["cases", *(f"{group['cases']:,}" for group in first)]]
    rows += [[name, *map(score, values)] for name, values in means.items()]
    best = {
        (row, column)
        for column, values in enumerate(zip(*means.values(), strict=True), start=1)
        for row, value in enumerate(values, start=1)
        if value == max(values)
    }
    return Table(_TITLES[side], [Column("rows", right=False), *map(Column, _ranges(first))], rows, best)


def _shape(groups: list[dict[str, Any]]) -> list[tuple[int, list[int], int]]:
    return [(group["decile"], group["rows"], group["cases"]) for group in groups]


def _means(seeds: list[list[dict[str, Any]]]) -> list[float]:
    return [statistics.fmean(group[METRIC] for group in groups) for groups in zip(*seeds, strict=True)]


def _ranges(groups: list[dict[str, Any]]) -> list[str]:
    """Returns the fewest and the most training rows of each group."""
    ends = (group["rows"] for group in groups)
    return [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in ends]
