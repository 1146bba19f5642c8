"""Ranking the catalogue by a sequence model's last hidden state."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.evaluation.scorer import Histories

ENCODED_POSITIONS = 1 << 15
"""Positions encoded at once: bounds activations, whatever block of users is asked for."""


class SequenceScorer:
    """Scores by the product of each history's last hidden state with the item table; implements `Scorer`.

    Computed in the weights' own precision (fp32), also under autocast, without dropout and without gradients;
    the model is left in the mode it was found in. A history is read from its last `max_length` items; an
    empty one is scored by the first position alone.

    Args:
        model: a sequence model on `device`: called with items int64 [B, L], padded on the right, and lengths
            int64 [B] it returns hidden states [B, L, D]; its `item_embeddings` are the item table [V, D].
        max_length: L, the longest sequence it takes.
        num_items: V.
        device: where it is.
        mask_token: what stands, behind the history, for the item to be told; None where the last item's state
            tells the next. It counts as one of the `max_length`.
    """

    def __init__(
        self,
        model: nn.Module,
        max_length: int,
        num_items: int,
        device: torch.device,
        mask_token: int | None = None,
    ) -> None:
        self.model = model
        self.max_length = max_length
        self.num_items = num_items
        self.device = device
        self.mask_token = mask_token

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns scores float32 [B, V]; users' own numbers are not looked at."""
        inputs, lengths = self._read(histories)
        training = self.model.training
        self.model.train(False)
        try:
            with torch.autocast(self.device.type, enabled=False):
                return self._products(self._last_hidden(inputs, lengths))
        finally:
            self.model.train(training)

    def _products(self, hidden: Tensor) -> Tensor:
        """Returns the scores [B, V] of states [B, D]."""
        return hidden @ cast(Tensor, self.model.item_embeddings).T

    def _read(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """Returns what the model reads: items int64 [B, L], and how many int64 [B]."""
        if self.mask_token is None:
            return histories.last(self.max_length)
        inputs, lengths = histories.last(self.max_length - 1)
        inputs = F.pad(inputs, (0, 1)).scatter(1, lengths[:, None], self.mask_token)
        return inputs, lengths + 1

    def _last_hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Returns each sequence's hidden state at its last item, [B, D], some sequences at a time."""
        rows = max(1, ENCODED_POSITIONS // self.max_length)
        parts = zip(inputs.split(rows), lengths.split(rows), strict=True)
        return torch.cat([self._encode(*part) for part in parts])

    def _encode(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        width = max(1, int(lengths.max())) if len(lengths) else 1
        hidden = self.model(inputs[:, :width], lengths)
        last = (lengths - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
