"""Deep knowledge tracing over item vectors: which of the next items will be answered right."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.layout import Padded
from effrec_cli.models.transformer import EPS, Block

START = 2
"""What stands for the answer before the first of a window; 0 is a wrong one, 1 a right one."""

_PLACE_STD = 0.02


class Tracer(nn.Module, ABC):
    """Answers to the logit of a right answer to each item, from what was answered before it.

    What is read at place n is [vector of item n - 1; was it answered right; place n], through a linear layer
    (papers/gram section 2); at place 0 a zero vector and a mark of its own. The logit is the dot product of
    the state at n with the vector of item n itself, so an item's vector is used as input and as output. Item
    vectors go through the linear layers once each, not once for every answer.

    Args:
        vector_dim: d, width of the item vectors.
        dim: width D of the states; None is d. Where it differs from d, output vectors are projected.
        mark_dim: width of the vectors of an answer and of a place.
        max_length: longest window L.

    Attributes:
        tasks: the training tasks that can feed it.
    """

    tasks: ClassVar[tuple[str, ...]] = ("knowledge_tracing",)

    def __init__(self, vector_dim: int, dim: int | None, mark_dim: int, max_length: int) -> None:
        super().__init__()
        self.dim = dim or vector_dim
        self.answers = nn.Embedding(3, mark_dim)
        self.positions = nn.Embedding(max_length, mark_dim)
        self.read_item = nn.Linear(vector_dim, self.dim)
        self.read_marks = nn.Linear(2 * mark_dim, self.dim, bias=False)
        same = self.dim == vector_dim
        self.project = nn.Identity() if same else nn.Linear(vector_dim, self.dim, bias=False)
        # Drawn as wide as usual, places would drown the items in what is read: the Transformer learns less.
        nn.init.normal_(self.positions.weight, std=_PLACE_STD)

    def forward(self, vectors: Tensor, items: Tensor, correct: Tensor, lengths: Tensor) -> Tensor:
        """Returns the logits of right answers [B, L]; 0 at padding.

        Args:
            vectors: [U, d] item vectors.
            items: int64 [B, L] positions into `vectors`, padded on the right with any of them; L at most
                `max_length`.
            correct: int64 [B, L]; 1 where the item was answered right, else 0.
            lengths: int64 [B] real answers of each window.
        """
        real = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        states = self._states(self._inputs(vectors, items, correct), lengths)
        logits = (states * F.embedding(items, self.project(vectors))).sum(-1)
        return logits.masked_fill(~real, 0.0)

    def _inputs(self, vectors: Tensor, items: Tensor, correct: Tensor) -> Tensor:
        """Returns what is read at each place, [B, L, D]: the answer before it."""
        weight, bias = self.read_item.weight, self.read_item.bias
        read = F.embedding(items[:, :-1], F.linear(vectors, weight))
        before = F.pad(correct[:, :-1], (1, 0), value=START)
        places = self.positions.weight[: items.shape[1]].expand(len(items), -1, -1)
        marks = torch.cat([self.answers(before), places], dim=-1)
        return F.pad(read, (0, 0, 1, 0)) + self.read_marks(marks) + bias

    @abstractmethod
    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Returns the states [B, L, D] from what is read, [B, L, D], none of them from what comes later."""


class DKT(Tracer):
    """The LSTM of papers/gram section 2 (after Piech et al. 2015, over item vectors).

    Args:
        vector_dim: d, width of the item vectors.
        dim: width D of the states; None is d.
        mark_dim: width of the vectors of an answer and of a place.
        num_layers: LSTM layers.
        max_length: longest window L.
        dropout: share of what is read, and of states, dropped in training.
    """

    def __init__(
        self,
        vector_dim: int,
        *,
        dim: int | None = None,
        mark_dim: int = 16,
        num_layers: int = 2,
        max_length: int = 100,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(vector_dim, dim, mark_dim, max_length)
        # Layer by layer: the dropout of cuDNN's own stack is set up anew whenever a seed has been planted, as
        # it is in every step, and the host waits for it.
        self.layers = nn.ModuleList(nn.LSTM(self.dim, self.dim, batch_first=True) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)

    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        states: Tensor = self.dropout(inputs)
        if inputs.numel():  # An LSTM refuses a batch without windows.
            for layer in self.layers:
                states = self.dropout(layer(states)[0])
        return states


class TransformerDKT(Tracer):
    """The same task, input and tied output with a causal Transformer in the LSTM's place.

    Its states come out of a LayerNorm, and are divided by sqrt(D): logits begin as small as the LSTM's.

    Args:
        vector_dim: d, width of the item vectors.
        dim: width D of the states; None is d; divisible by `num_heads`.
        mark_dim: width of the vectors of an answer and of a place.
        num_layers: Transformer blocks.
        num_heads: attention heads.
        max_length: longest window L.
        dropout: on what is read and on what attention and feed-forward add.
        norm: `pre` or `post` (see `Block`).
        ffn_ratio: width of the feed-forward layer over D.
        activation: `relu` or `gelu`.
    """

    def __init__(
        self,
        vector_dim: int,
        *,
        dim: int | None = None,
        mark_dim: int = 16,
        num_layers: int = 2,
        num_heads: int = 2,
        max_length: int = 100,
        dropout: float = 0.2,
        norm: str = "pre",
        ffn_ratio: float = 4.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__(vector_dim, dim, mark_dim, max_length)
        width = max(1, round(ffn_ratio * self.dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(self.dim, num_heads, width, dropout, norm, activation) for _ in range(num_layers)
        )
        self.final_norm = nn.Identity() if norm == "post" else nn.LayerNorm(self.dim, eps=EPS[norm])

    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        layout = Padded.of(inputs, lengths)
        x = self.dropout(inputs)
        for block in self.blocks:
            x = block(x, layout)
        states: Tensor = self.final_norm(x)
        return states / math.sqrt(self.dim)
