"""Histories as the items that vote for what to recommend."""

from __future__ import annotations

import torch

from effrec_cli.evaluation.blocks import rows_of
from effrec_cli.evaluation.scorer import Histories


def voters(histories: Histories, num_items: int, last: int | None = None) -> Histories:
    """Returns the distinct items among each history's last `last` ones, ascending by row number.

    Args:
        histories: of B users.
        num_items: size of the catalogue.
        last: length of what counts; None counts all.
    """
    rows, items = rows_of(histories), histories.items
    if last is not None:
        from_end = histories.offsets[1:][rows] - torch.arange(len(items), device=items.device)
        rows, items = rows[from_end <= last], items[from_end <= last]
    cells = torch.unique(rows * num_items + items)
    counts = torch.bincount(cells // num_items, minlength=len(histories))
    return Histories(cells % num_items, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
