"""Ranking the catalogue by a network that scores a user with an item."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from effrec_cli.evaluation.scorer import Histories, Scorer
from effrec_cli.models.pairs import PairModel, Parts
from effrec_cli.models.two_tower import TwoTower

FoldIn = Callable[[Tensor, Tensor], Tensor]
"""From the offsets int64 [B + 1] and items int64 [total] of B histories to users' vectors float [B, d]."""

PAIRS = 1 << 14
"""Pairs of a user and an item that a network sees at once: bounds its activations."""
_ITEMS = 1 << 16
"""Items whose vectors are made at once."""


def scorer_of(model: PairModel, num_items: int, device: torch.device, fold_in: FoldIn | None) -> Scorer:
    """Returns what ranks the catalogue with the model's current weights.

    Args:
        model: on `device`.
        num_items: V.
        device: where it is.
        fold_in: makes the vector of a user whom training never saw, of its items; None has none, and such a
            user is scored by a vector of zeros.
    """
    kind = VectorScorer if model.has_vectors else PairScorer
    return kind(model, num_items, device, fold_in)


class PairScorer:
    """Scores all items for a block of users, `PAIRS` at a time; implements `Scorer`.

    What depends on an item alone is computed once and kept. Arguments as of `scorer_of`.
    """

    def __init__(
        self, model: PairModel, num_items: int, device: torch.device, fold_in: FoldIn | None = None
    ) -> None:
        self.model, self.num_items, self.device = model, num_items, device
        self._fold_in = fold_in

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns logits float32 [B, V]; users below 0 are folded in from histories, or all are."""
        with torch.autocast(self.device.type, enabled=False):
            parts = self.model.user_parts(users, self._folded(users, histories))
            scores = users.new_empty((len(users), self.num_items), dtype=torch.float32)
            wide = min(self.num_items, PAIRS)
            high = max(1, PAIRS // wide)
            for top in range(0, len(users), high):
                mine = tuple(part[top : top + high] for part in parts)
                for left in range(0, self.num_items, wide):
                    theirs = tuple(part[:, left : left + wide] for part in self._items)
                    block = self.model.combine(mine, theirs)
                    scores[top : top + high, left : left + wide] = block
            return scores

    @cached_property
    def _items(self) -> Parts:
        """What depends on the items alone, each [1, V, ...]."""
        blocks = torch.arange(self.num_items, device=self.device).split(_ITEMS)
        made = [self.model.item_parts(block) for block in blocks]
        return tuple(torch.cat(parts)[None] for parts in zip(*made, strict=True))

    def _folded(self, users: Tensor, histories: Histories) -> Tensor | None:
        """Returns vectors [B, d] where a user has none, or all are to be made anew; else None."""
        if not bool(self.model.users.missing(users).any()):
            return None
        if self._fold_in is None:
            return self.model.users.table.new_zeros(len(users), self.model.users.table.shape[1])
        return self._fold_in(histories.offsets, histories.items)


class VectorScorer(PairScorer):
    """Scores by the product of users' and items' vectors, one matrix product; implements `Scorer`.

    The model's bias and scale, which change no ranking, are left away, so that they can round none.
    """

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns products float32 [B, V]; users below 0 are folded in from histories, or all are."""
        with torch.autocast(self.device.type, enabled=False):
            model = cast(TwoTower, self.model)
            vectors = model.user_vectors(users, self._folded(users, histories))
            return vectors @ self._items[0][0].T
