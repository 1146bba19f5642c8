"""Ranking the catalogue for users of whom nothing is known but their items, by sparse layers."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from effrec_kernels import packed_scores
from torch import Tensor

from effrec_cli.evaluation.blocks import rows_of
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.evaluation.votes import voters
from effrec_cli.models.multvae import MultVAE, shares_of
from effrec_cli.models.sparse.served import ServedTable
from effrec_cli.models.sparse.whole import whole

_ITEMS = 1 << 13
"""Items of histories whose vectors are made at once."""


class BagScorer:
    """Scores by the mean of the code of each history; implements `Scorer`.

    Users are looked at by their histories alone, so that one whom training never saw is ranked for as others
    are. Packed tables are not made dense.

    Args:
        model: whose tables are served.
        num_items: V.
        device: where it is.
    """

    def __init__(self, model: MultVAE, num_items: int, device: torch.device) -> None:
        self.model, self.num_items, self.device = model, num_items, device

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns logits float32 [B, V]."""
        with torch.autocast(self.device.type, enabled=False):
            mean, _ = self.model.code(self._bags(voters(histories, self.num_items)))
            hidden, table = self.model.decoded(mean), self.model.items
            packed = table.packed if isinstance(table, ServedTable) else None
            products = F.linear(hidden, self._items) if packed is None else packed_scores(hidden, packed)
            return products + self.model.items_bias

    def _bags(self, histories: Histories) -> Tensor:
        """Returns the sums of items' vectors by their shares, float32 [B, hidden]."""
        owners, shares = rows_of(histories), shares_of(histories.offsets, len(histories.items))
        sums = shares.new_zeros(len(histories), self.model.read.width)
        for some in torch.arange(len(owners), device=owners.device).split(_ITEMS):
            vectors = self.model.read.look_up(histories.items[some])
            sums.index_add_(0, owners[some], vectors * shares[some, None])
        return sums

    @cached_property
    def _items(self) -> Tensor:
        """The decoder's vectors of all items, where they are dense."""
        return whole(self.model.items)
