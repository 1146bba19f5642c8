"""Ranking the catalogue by a sequence model whose item table is served, packed or dense."""

from __future__ import annotations

from typing import Any, cast

import torch
from effrec_kernels import packed_scores
from torch import Tensor

from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.models.sparse.served import ServedTable

_ROWS = 1 << 13
"""Rows of a dense table of few bits that are widened at a time."""


class TableScorer(SequenceScorer):
    """`SequenceScorer` over a table as it is served: a packed one is not made dense.

    Args:
        model: a sequence model whose `items` are a `ServedTable`.
        max_length: L, the longest sequence it takes.
        device: where it is.
    """

    def __init__(self, model: Any, max_length: int, device: torch.device) -> None:
        mask_token = getattr(model, "mask_token", None)
        super().__init__(model, max_length, model.items.shape.rows, device, mask_token)
        self._table = cast(ServedTable, model.items)

    def _products(self, hidden: Tensor) -> Tensor:
        if self._table.packed is not None:
            return packed_scores(hidden, self._table.packed)
        rows = torch.arange(self.num_items, device=self.device).split(_ROWS)
        return torch.cat([hidden @ self._table.look_up(some).T for some in rows], 1)
