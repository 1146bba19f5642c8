"""SASRec: a causal Transformer that reads a user's items and foretells the next (Kang and McAuley 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
EPS = {"pre": 1e-5, "post": 1e-5, "sasrec": 1e-8}
"""LayerNorm's epsilon by norm variant; 1e-8 is the reference's (papers/cce section 3.1)."""


class CausalAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it.

    Args:
        dim: width D of inputs and outputs.
        num_heads: heads; divides `dim`.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Returns [B, L, D] for queries [B, L, D] that see `context` [B, L, D] up to their own position."""
        q, k, v = (self._heads(x) for x in self._project(queries, context))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _project(self, queries: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        if queries is context:
            return self.qkv(context).chunk(3, dim=-1)
        dim = queries.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(queries, weight[:dim], bias[:dim])
        return (q, *F.linear(context, weight[dim:], bias[dim:]).chunk(2, dim=-1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with an activation between, at every position alone.

    Args:
        dim: width D of inputs and outputs.
        width: width between the layers.
        activation: `relu` or `gelu`.
        dropout: share dropped between the layers in training.
    """

    def __init__(self, dim: int, width: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, width)
        self.outer = nn.Linear(width, dim)
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, L, D] for x [B, L, D]."""
        return self.outer(self.dropout(self.activation(self.inner(x))))


class Block(nn.Module):
    """Attention, then feed-forward, each with a residual and a LayerNorm placed as `norm` says.

    - `pre`: `x + drop(f(LN(x)))`;
    - `post`: `LN(x + drop(f(x)))`;
    - `sasrec`: the reference's (papers/cce section 3.1): only queries are normed, and residuals add what was
      normed: `q = LN(x); y = q + attention(q, x); z = LN(y); z + drop(ffn(z))`. It alone also drops
      attention weights and between the feed-forward's layers: elsewhere that made training a third slower
      and the model no better.

    Args:
        dim: width D.
        num_heads: attention heads.
        width: width of the feed-forward layer.
        dropout: share dropped in training.
        norm: `pre`, `post` or `sasrec`.
        activation: `relu` or `gelu`.
    """

    def __init__(
        self, dim: int, num_heads: int, width: int, dropout: float, norm: str, activation: str
    ) -> None:
        super().__init__()
        inside = dropout if norm == "sasrec" else 0.0
        self.attention = CausalAttention(dim, num_heads, inside)
        self.ffn = FeedForward(dim, width, activation, inside)
        self.attention_norm = nn.LayerNorm(dim, eps=EPS[norm])
        self.ffn_norm = nn.LayerNorm(dim, eps=EPS[norm])
        self.dropout = nn.Dropout(dropout)
        self.apply_block = {"pre": self._pre, "post": self._post, "sasrec": self._sasrec}[norm]

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, L, D] for x [B, L, D]."""
        return self.apply_block(x)

    def _pre(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))

    def _post(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, x)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def _sasrec(self, x: Tensor) -> Tensor:
        queries = self.attention_norm(x)
        normed = self.ffn_norm(queries + self.attention(queries, x))
        return normed + self.dropout(self.ffn(normed))


class SASRec(nn.Module):
    """Item sequences to hidden states; the item table is also the head, without bias.

    Sequences are padded on the right. Causal attention then never lets a real position see a padded one, so
    no mask and no padding row in the table are needed; what stands at padded positions is not to be used.
    Positions count from the start of the window.

    Args:
        num_items: V, rows of the item table.
        dim: width D; divisible by `num_heads`.
        num_layers: Transformer blocks.
        num_heads: attention heads.
        max_length: longest sequence L.
        dropout: on embeddings and on what attention and feed-forward add (see `Block`).
        norm: `pre`, `post` or `sasrec` (see `Block`); all but `post` end with a LayerNorm.
        ffn_ratio: width of the feed-forward layer over D.
        activation: `relu` or `gelu`.
        init_std: standard deviation of item and position vectors; None is Xavier-normal. All other matrices
            are Xavier-normal, biases 0.
        scale_embedding: multiply item vectors by sqrt(D) at the input.

    Attributes:
        tasks: the training tasks that can feed it.
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(
        self,
        num_items: int,
        *,
        dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        max_length: int = 100,
        dropout: float = 0.2,
        norm: str = "pre",
        ffn_ratio: float = 4.0,
        activation: str = "gelu",
        init_std: float | None = 0.02,
        scale_embedding: bool = False,
    ) -> None:
        super().__init__()
        width = max(1, round(ffn_ratio * dim))
        self.items = nn.Embedding(num_items, dim)
        self.positions = nn.Embedding(max_length, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, width, dropout, norm, activation) for _ in range(num_layers)
        )
        self.final_norm = nn.Identity() if norm == "post" else nn.LayerNorm(dim, eps=EPS[norm])
        self.scale = math.sqrt(dim) if scale_embedding else 1.0
        self._initialise(init_std)

    @property
    def item_embeddings(self) -> Tensor:
        """The item table [V, D], input and head at once."""
        return self.items.weight

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Returns hidden states [B, L, D]; the one at t foretells item t + 1.

        Args:
            inputs: int64 [B, L] item row numbers, padded on the right with any valid row; L <= max_length.
            lengths: int64 [B] real items of each sequence.
        """
        column = torch.arange(inputs.shape[1], device=inputs.device)
        real = (column < lengths[:, None]).unsqueeze(-1)
        x = self.items(inputs) * self.scale
        x = self.dropout(x.masked_fill(~real, 0.0) + self.positions.weight[: len(column)])
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x)

    def _initialise(self, init_std: float | None) -> None:
        """Draws all weights from torch's global generator, in the order of `named_parameters`."""
        for name, weight in self.named_parameters():
            embedding = name in ("items.weight", "positions.weight")
            if embedding and init_std is not None:
                nn.init.normal_(weight, std=init_std)
            elif weight.ndim > 1:
                nn.init.xavier_normal_(weight)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)
