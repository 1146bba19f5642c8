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
    stands still. Without a bias: the head's would add the same to every score of a row. An encoder that ends
    with a matrix of its own, as IISAN's does (papers/iisan section 1.6), needs none.

    Args:
        vector_dim: d, width of item vectors.
        dim: width D; divisible by `num_heads`.
        projection: whether there is one; without it d is D.
        settings: the others of `SequenceModel`.

    Attributes:
        compiled_with: the options that `compile` was called with, so that a loss can be compiled with the
            model; None before.
    """

    compiled_with: dict[str, Any] | None = None

    def __init__(self, vector_dim: int, *, dim: int, projection: bool = True, **settings: Any) -> None:
        assert projection or vector_dim == dim, "without a projection vectors are as wide as states"
        items = nn.Linear(vector_dim, dim, bias=False) if projection else nn.Identity()
        super().__init__(items, dim=dim, **settings)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compiles the model, by `torch.compile` with the options given."""
        super().compile(*args, **options)
        self.compiled_with = options

    def item_vectors(self, vectors: Tensor) -> Tensor:
        """Returns what states are multiplied with, [U, D], of item vectors [U, d]: themselves, projected."""
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
        """Returns the hidden states of `forward` from the vectors [U, D] of `item_vectors`."""

        def look_up(rows: Tensor, real: Tensor | None) -> Tensor:
            found = F.embedding(rows, items) * self.scale
            return found if real is None else torch.where(real.unsqueeze(-1), found, 0.0)

        return self._read(inputs, lengths, places, None, look_up)
