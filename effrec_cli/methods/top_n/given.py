"""The vectors that a factorisation gives to a network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from effrec_cli.methods.top_n.scorer import FoldIn


@dataclass(frozen=True)
class Factors:
    """User and item vectors whose products rank.

    Attributes:
        users: float32 [U, d] on the CPU.
        items: float32 [V, d] on the CPU.
        seconds: that fitting them took, whichever run did it.
        fold_in: the vector of a user whom training never saw, of its items; None where there is none.
    """

    users: Tensor
    items: Tensor
    seconds: float = 0.0
    fold_in: FoldIn | None = None
