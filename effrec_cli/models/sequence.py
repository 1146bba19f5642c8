"""What models over item sequences share: places, Transformer blocks, and how windows lie in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from effrec_cli.models.layout import Bucketed, Layout, Packed, Padded
from effrec_cli.models.ragged import has_varlen
from effrec_cli.models.transformer import EPS, Block

INPUT_EPS = 1e-6
"""Epsilon of the LayerNorm at the input, as published (papers/iisan section 1.7)."""
MOSTLY_FULL = 0.95
"""Share of a batch's places from which on it is left padded where rectangles would be the other way."""


class SequenceModel(nn.Module):
    """Item sequences to hidden states; where an item's vector comes from is up to who inherits.

    Sequences are padded on the right. Causal attention then never lets a real position see a padded one, so
    no mask is needed; what stands at padded positions is not to be used. Positions count from the start of
    the window.

    Args:
        items: makes items' vectors [..., D].
        dim: width D; divisible by `num_heads`.
        num_layers: Transformer blocks.
        num_heads: attention heads.
        max_length: longest sequence L.
        dropout: on embeddings and on what attention and feed-forward add (see `Block`).
        norm: `pre`, `post` or `sasrec` (see `Block`); all but `post` end with a LayerNorm.
        ffn_ratio: width of the feed-forward layer over D.
        activation: `relu` or `gelu`.
        init_std: standard deviation of looked-up vectors (items', positions'); None is Xavier-normal. All
            other matrices are Xavier-normal, biases 0.
        scale_embedding: multiply item vectors by sqrt(D) at the input.
        attention_bias: that queries, keys, values and outputs of attention have one.
        input_norm: a LayerNorm over items plus positions, before dropout.
        packed: whether windows go through the layers without their padding; `auto` where that is faster (see
            `packs`). Never what is computed.

    Attributes:
        causal: whether a position sees only itself and what came before it.
    """

    causal: ClassVar[bool] = True

    def __init__(
        self,
        items: nn.Module,
        *,
        dim: int,
        num_layers: int = 2,
        num_heads: int = 2,
        max_length: int = 100,
        dropout: float = 0.2,
        norm: str = "pre",
        ffn_ratio: float = 4.0,
        activation: str = "gelu",
        init_std: float | None = 0.02,
        scale_embedding: bool = False,
        attention_bias: bool = True,
        input_norm: bool = False,
        packed: Literal["auto", True, False] = "auto",
    ) -> None:
        super().__init__()
        self.packed = packed
        width = max(1, round(ffn_ratio * dim))
        self.items = items
        self.positions = nn.Embedding(max_length, dim)
        self.input_norm = nn.LayerNorm(dim, eps=INPUT_EPS) if input_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, width, dropout, norm, activation, self.causal, attention_bias)
            for _ in range(num_layers)
        )
        self.final_norm = nn.Identity() if norm == "post" else nn.LayerNorm(dim, eps=EPS[norm])
        self.scale = math.sqrt(dim) if scale_embedding else 1.0
        self._initialise(init_std)

    def _read(
        self,
        inputs: Tensor,
        lengths: Tensor,
        places: Tensor | None,
        tokens: Tensor | None,
        look_up: Callable[[Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        """Returns hidden states [B, L, D], or those at `places`, [m, D].

        Args:
            inputs: int64 [B, L], padded on the right.
            lengths: int64 [B] real items of each sequence.
            places: int64 [m], flat places in [B, L] that are wanted, or None.
            tokens: int64 [T], the flat places of all items; None where `places` are all of them.
            look_up: returns the vectors [..., D] of inputs [...], zeros where its second argument is false.
        """
        layout = self._layout(inputs, lengths, places if tokens is None else tokens)
        x = look_up(layout.pick(inputs), layout.real) + self.positions(layout.columns)
        x = self.dropout(self.input_norm(x))
        for block in self.blocks:
            x = block(x, layout)
        return layout.states(self._head(x), places)

    def packs(self, device: torch.device, compiled: bool = False) -> bool:
        """Returns whether windows go through the layers without their padding.

        `auto` does so on a CPU, unless compiled (rectangles change with the batch), and on a GPU for which
        torch has the kernel: 16 bits, by the autocast that this is asked under, and no dropout on attention.

        Args:
            device: where the model is to run.
            compiled: whether by `torch.compile`.
        """
        if self.packed != "auto":
            return bool(self.packed)
        if device.type != "cuda":
            return device.type == "cpu" and not compiled
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32
        attention = cast(Block, self.blocks[0]).attention
        return has_varlen(device, dtype, attention.head_dim, attention.dropout)

    def _layout(self, inputs: Tensor, lengths: Tensor, tokens: Tensor | None) -> Layout:
        if tokens is None or not len(inputs) or not self.packs(inputs.device, torch.compiler.is_compiling()):
            return Padded.of(inputs, lengths)
        if inputs.device.type == "cuda" and torch.is_grad_enabled():
            return Packed.of(inputs, lengths, tokens)
        bucketed = Bucketed.of(inputs, lengths)
        worth_it = len(bucketed.tokens) <= MOSTLY_FULL * inputs.numel()
        return bucketed if worth_it else Padded.of(inputs, lengths)

    def _head(self, x: Tensor) -> Tensor:
        """Returns what is multiplied with the item table, from the last block's states."""
        return self.final_norm(x)

    def _initialise(self, init_std: float | None) -> None:
        """Draws all weights from torch's global generator, in the order of `named_parameters`."""
        for name, weight in self.named_parameters():
            embedding = isinstance(self.get_submodule(name.rpartition(".")[0]), nn.Embedding)
            if embedding and init_std is not None:
                nn.init.normal_(weight, std=init_std)
            elif weight.ndim > 1:
                nn.init.xavier_normal_(weight)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)
