"""The built-in encoder: a small Transformer over words or over the patches of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.encoders.network import PartedNetwork
from effrec_cli.models.layout import Padded
from effrec_cli.models.transformer import Block

INIT_STD = 0.02
PATCHES = 8
"""Patches along an image's longer side."""


class WordEmbedding(nn.Module):
    """Words and their places to states.

    Args:
        num_words: words of the vocabulary.
        num_places: tokens of the longest item.
        dim: width D.
    """

    def __init__(self, num_words: int, num_places: int, dim: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, dim)
        self.places = nn.Embedding(num_places, dim)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=INIT_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns states [n, w, D] of tokens [n, w]."""
        return self.words(tokens) + self.places.weight[: tokens.shape[1]]


class PatchEmbedding(nn.Module):
    """Square patches of an image to states; right and bottom are filled up with grey.

    Args:
        height: pixels of an image's height.
        width: pixels of its width.
        dim: width D.
    """

    def __init__(self, height: int, width: int, dim: int) -> None:
        super().__init__()
        self.side = -(-max(height, width) // PATCHES)
        self.margin = (-width % self.side, -height % self.side)
        self.count = -(-height // self.side) * -(-width // self.side)
        self.project = nn.Linear(3 * self.side**2, dim)
        self.places = nn.Parameter(INIT_STD * torch.randn(self.count, dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns states [n, patches, D] of pixels, uint8 [n, height, width, 3]."""
        values = pixels.movedim(-1, 1).to(self.places.dtype) / 127.5 - 1
        right, bottom = self.margin
        patches = F.unfold(F.pad(values, (0, right, 0, bottom)), self.side, stride=self.side)
        return self.project(patches.transpose(1, 2)) + self.places


class SmallNetwork(PartedNetwork):
    """An embedding and blocks of a Transformer that see a whole item.

    Args:
        embedding: inputs to states [n, w, D].
        dim: width D; divisible by `num_heads`.
        num_layers: blocks.
        num_heads: attention heads.
        dropout: share dropped of embeddings, and of what attention and feed-forward add.
    """

    def __init__(
        self, embedding: nn.Module, *, dim: int, num_layers: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__(dim)
        self.embedding = embedding
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, 4 * dim, dropout, "pre", "gelu", causal=False) for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns states [n, w, D]."""
        return self.upper(self.lower(inputs, real), real)

    def lower(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns the states [n, w, D] that block `frozen` reads."""
        return self._through(self.dropout(self.embedding(inputs)), real, 0, self.frozen)

    def upper(self, states: Tensor, real: Tensor | None) -> Tensor:
        """Returns the last states [n, w, D] from those that block `frozen` reads."""
        return self.final_norm(self._through(states, real, self.frozen, len(self.blocks)))

    def layers(self) -> nn.ModuleList:
        """Returns the blocks."""
        return self.blocks

    def tail(self) -> list[nn.Module]:
        """Returns the last LayerNorm."""
        return [self.final_norm]

    def _through(self, states: Tensor, real: Tensor | None, first: int, last: int) -> Tensor:
        if real is None:
            real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        layout = Padded(torch.arange(states.shape[1], device=states.device), real)
        for block in self.blocks[first:last]:
            states = block(states, layout)
        return states
