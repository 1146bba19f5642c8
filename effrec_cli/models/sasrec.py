"""SASRec: a causal Transformer that reads a user's items and foretells the next (Kang and McAuley 2018)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.models.sequence import SequenceModel


class SASRec(SequenceModel):
    """Item sequences to hidden states; the item table is also the head, without bias.

    Causal attention needs no padding row in the table.

    Args:
        num_items: V, rows of the item table.
        dim: width D; divisible by `num_heads`.
        settings: the others of `SequenceModel`.

    Attributes:
        tasks: the training tasks that can feed it.
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_item",)
    items: nn.Embedding

    def __init__(self, num_items: int, *, dim: int = 64, **settings: Any) -> None:
        super().__init__(nn.Embedding(num_items, dim), dim=dim, **settings)

    @property
    def item_embeddings(self) -> Tensor:
        """The item table [V, D], input and head at once."""
        return self.items.weight

    def forward(
        self, inputs: Tensor, lengths: Tensor, places: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """Returns hidden states [B, L, D], or those at `places`, [m, D]; the one at t foretells item t + 1.

        Args:
            inputs: int64 [B, L] item row numbers, padded on the right with any valid row; L <= max_length.
            lengths: int64 [B] real items of each sequence.
            places: int64 [m], which states are wanted, as flat places in [B, L]: only where items are.
            tokens: int64 [T], the flat places of all items; None where `places` are all of them.
        """
        return self._read(inputs, lengths, places, tokens, self._look_up)

    def give_rows(self) -> None:
        """Lets the gradient of the look-up be rows (docs: sparse.md): that of the head must be, too."""
        self.items.sparse = True

    def _look_up(self, items: Tensor, real: Tensor | None) -> Tensor:
        """Returns the vectors of items [...], [..., D]; zeros where nothing is real."""
        if self.items.sparse and real is not None:
            # An item that is read anyway: what stands for padding would else count as drawn.
            items = torch.where(real, items, items[..., :1])
        vectors: Tensor = self.items(items) * self.scale
        return vectors if real is None else vectors.masked_fill(~real.unsqueeze(-1), 0.0)
