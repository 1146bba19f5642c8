"""SASRec over vectors that an encoder makes of what items say, in place of an item table."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.sequence import SequenceModel


class ContentSASRec(SequenceModel):
    """Sequences of item vectors to hidden states; the vectors, projected, are also the head, without bias.

    The projection d -> D is there for d = D too: an encoder's vectors lie where its own training put them,
    and which directions tell items apart for users is the filter's to learn, above all where the encoder
    stands still. Without a bias: the head's would add the same to every score of a row.

    Args:
        vector_dim: d, width of item vectors.
        dim: width D; divisible by `num_heads`.
        settings: the others of `SequenceModel`.
    """

    items: nn.Linear

    def __init__(self, vector_dim: int, *, dim: int, **settings: Any) -> None:
        super().__init__(nn.Linear(vector_dim, dim, bias=False), dim=dim, **settings)

    def item_vectors(self, vectors: Tensor) -> Tensor:
        """Returns what states are multiplied with, [U, D], of item vectors [U, d]."""
        projected: Tensor = self.items(vectors)
        return projected

    def forward(
        self, vectors: Tensor, inputs: Tensor, lengths: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """Returns hidden states [B, L, D], or those at `places`, [m, D]; the one at t foretells item t + 1.

        Args:
            vectors: float [U, d].
            inputs: int64 [B, L] rows of `vectors`, padded on the right with any of them; L <= max_length.
            lengths: int64 [B] real items of each sequence.
            places: int64 [m], the flat places of all items in [B, L]: the states that are wanted; None is
                all places, padding too.
        """
        return self.states(self.item_vectors(vectors), inputs, lengths, places)

    def states(self, items: Tensor, inputs: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """Returns the hidden states of `forward` from projected vectors [U, D]."""

        def look_up(rows: Tensor, real: Tensor | None) -> Tensor:
            found = F.embedding(rows, items) * self.scale
            return found if real is None else torch.where(real.unsqueeze(-1), found, 0.0)

        return self._read(inputs, lengths, places, None, look_up)
