"""NRMS' user encoder: a user as the news they clicked, weighed by attention (Wu et al. 2019)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NRMS(nn.Module):
    """Vectors of clicked items to a user's vector, and its products with candidates' vectors.

    Multi-head self-attention lets the clicked items see each other, additive attention with one query weighs
    them (papers/gram section 2; there 16 heads of 48 over vectors of 768, query 200). What self-attention
    adds has no output matrix where heads x width is the vectors' width, as published, else one back to it.
    A user without clicks has a vector that is learned.

    Args:
        vector_dim: d, width of items' and users' vectors.
        num_heads: attention heads.
        head_dim: width of a head; None is d / `num_heads`, rounded up.
        query_dim: width in which additive attention compares with its query.
        dropout: on item vectors at the input and on what self-attention gives.

    Attributes:
        tasks: the training tasks that can feed it.
    """

    tasks: ClassVar[tuple[str, ...]] = ("news",)

    def __init__(
        self,
        vector_dim: int,
        *,
        num_heads: int = 4,
        head_dim: int | None = None,
        query_dim: int = 200,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * (head_dim or math.ceil(vector_dim / num_heads))
        self.qkv = nn.Linear(vector_dim, 3 * width)
        self.out = nn.Linear(width, vector_dim) if width != vector_dim else nn.Identity()
        self.key = nn.Linear(vector_dim, query_dim)
        self.query = nn.Linear(query_dim, 1, bias=False)
        self.nobody = nn.Parameter(torch.randn(vector_dim) / math.sqrt(vector_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, history: Tensor, lengths: Tensor, candidates: Tensor) -> Tensor:
        """Returns the candidates' scores [B, C], in the precision of `vectors`.

        Args:
            vectors: float [U, d].
            history: int64 [B, H] positions into `vectors`, oldest first; what stands from `lengths` on may
                be anything.
            lengths: int64 [B], 0 for an empty history.
            candidates: int64 [B, C] positions into `vectors`.
        """
        users = self.users(vectors, history, lengths)
        return (users[:, None] * vectors[candidates]).sum(-1)

    def users(self, vectors: Tensor, history: Tensor, lengths: Tensor) -> Tensor:
        """Returns users' vectors [B, d]; arguments as of `forward`."""
        real = torch.arange(history.shape[1], device=history.device) < lengths[:, None]
        clicked = self.dropout(vectors[history.where(real, 0)])
        # An empty row attends to its padding, so that nothing is NaN, and is replaced at the end.
        empty = lengths == 0
        real = real | empty[:, None]
        seen = self.dropout(self._among_themselves(clicked, real))
        weights = self.query(torch.tanh(self.key(seen))).squeeze(-1)
        weights = weights.masked_fill(~real, -torch.inf).softmax(-1)
        users = (weights.unsqueeze(-1) * seen).sum(1)
        return torch.where(empty[:, None], self.nobody.to(users.dtype), users)

    def _among_themselves(self, clicked: Tensor, real: Tensor) -> Tensor:
        """Returns [B, H, d]: each clicked item as it sees the others of its history."""
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in self.qkv(clicked).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        return self.out(seen.transpose(1, 2).flatten(-2))
