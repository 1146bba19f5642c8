"""The Transformer's parts: attention, feed-forward, and the two in a block."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.layout import Layout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
EPS = {"pre": 1e-5, "post": 1e-5, "sasrec": 1e-8}
"""LayerNorm's epsilon by norm variant; 1e-8 is the reference's (papers/cce section 3.1)."""


class Attention(nn.Module):
    """Multi-head attention within each window.

    Args:
        dim: width D of inputs and outputs.
        num_heads: heads; divides `dim`.
        dropout: share of attention weights dropped in training.
        causal: whether a position sees only itself and what came before it.
        bias: add one to queries, keys, values and outputs.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, causal: bool, bias: bool = True) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.dropout = dropout
        self.causal = causal
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.out = nn.Linear(dim, dim, bias)

    def forward(self, queries: Tensor, context: Tensor, layout: Layout) -> Tensor:
        """Returns [..., D] for queries [..., D] that see `context` [..., D] of their window."""
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)) for x in self._project(queries, context))
        dropout = self.dropout if self.training else 0.0
        return self.out(layout.attend((q, k, v), causal=self.causal, dropout=dropout).flatten(-2))

    def _project(self, queries: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        if queries is context:
            return self.qkv(context).chunk(3, dim=-1)
        dim = queries.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        of_q, of_kv = (None, None) if bias is None else (bias[:dim], bias[dim:])
        q = F.linear(queries, weight[:dim], of_q)
        return (q, *F.linear(context, weight[dim:], of_kv).chunk(2, dim=-1))


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
        """Returns [..., D] for x [..., D]."""
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
        causal: whether a position sees only itself and what came before it.
        attention_bias: that attention's four matrices have one.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        width: int,
        dropout: float,
        norm: str,
        activation: str,
        causal: bool = True,
        attention_bias: bool = True,
    ) -> None:
        super().__init__()
        inside = dropout if norm == "sasrec" else 0.0
        self.attention = Attention(dim, num_heads, inside, causal, attention_bias)
        self.ffn = FeedForward(dim, width, activation, inside)
        self.attention_norm = nn.LayerNorm(dim, eps=EPS[norm])
        self.ffn_norm = nn.LayerNorm(dim, eps=EPS[norm])
        self.dropout = nn.Dropout(dropout)
        self.apply_block = {"pre": self._pre, "post": self._post, "sasrec": self._sasrec}[norm]

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Returns [..., D] for x [..., D]."""
        return self.apply_block(x, layout)

    def _pre(self, x: Tensor, layout: Layout) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, layout))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))

    def _post(self, x: Tensor, layout: Layout) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, x, layout)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def _sasrec(self, x: Tensor, layout: Layout) -> Tensor:
        queries = self.attention_norm(x)
        normed = self.ffn_norm(queries + self.attention(queries, x, layout))
        return normed + self.dropout(self.ffn(normed))
