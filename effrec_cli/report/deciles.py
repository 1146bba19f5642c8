"""The table of how good a run is by how often training met the user and the item."""

from __future__ import annotations

from typing import Any

from effrec_cli.report import figures
from effrec_cli.report.layout import Column, Table

_SIDES = {"users": "user's rows", "items": "item's rows"}
_KEYS = ("decile", "rows", "cases")


def deciles_table(by_frequency: dict[str, list[dict[str, Any]]]) -> Table:
    """Returns `by_frequency` of a result: a line for each decile, users and items side by side."""
    columns, rows = [Column("decile")], [[str(decile)] for decile in range(1, 11)]
    for side, head in _SIDES.items():
        groups = {group["decile"]: group for group in by_frequency[side]}
        metrics = list(
            dict.fromkeys(name for group in groups.values() for name in group if name not in _KEYS)
        )
        columns += [Column(head), Column("cases", importance=0), *map(Column, metrics)]
        for at, cells in enumerate(rows, start=1):
            cells += _cells(groups.get(at), metrics)
    filled = [cells for cells in rows if set(cells[1:]) != {figures.MISSING}]
    return Table("test cases by training rows, few to many", columns, filled)


def _cells(group: dict[str, Any] | None, metrics: list[str]) -> list[str]:
    if group is None:
        return [figures.MISSING] * (2 + len(metrics))
    fewest, most = group["rows"]
    rows = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return [rows, f"{group['cases']:,}", *(figures.score(group[name]) for name in metrics)]
