"""How the states of an item's tokens become its vector, in float32 whatever the states are in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pooling(nn.Module):
    """States [n, w, D] to vectors [n, D]; padding is never read.

    Half precision ends here: vectors and their gradients are what steps add up.

    Args:
        dim: width D.
        kind: `mean` over real tokens, `cls` the first token, or `attention`: softmax over real tokens of
            `q . tanh(W h + b)` (papers/gram section 2).
        width: rows of W.
    """

    def __init__(self, dim: int, kind: str, width: int = 200) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.project = nn.Linear(dim, width)
            self.query = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, real: Tensor | None) -> Tensor:
        """Returns vectors, at least float32 [n, D]; `real` bool [n, w], or None where no token is padding."""
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(torch.promote_types(states.dtype, torch.float32))
            if self.kind == "cls":
                return states[:, 0]
            return (self._weights(states, real)[..., None] * states).sum(1)

    def _weights(self, states: Tensor, real: Tensor | None) -> Tensor:
        """Returns the tokens' weights [n, w], which add up to 1."""
        if self.kind == "attention":
            scores = self.query(torch.tanh(self.project(states))).squeeze(-1)
        else:
            scores = states.new_zeros(states.shape[:2])
        return (scores if real is None else scores.masked_fill(~real, -torch.inf)).softmax(-1)
