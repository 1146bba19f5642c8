"""What every route from rows to losses takes: a chunk of rows, and where gradients gather."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .objectives import Upstream
from .products import add_product_, mm


@dataclass(frozen=True)
class Part:
    """A chunk of m rows, ready for arithmetic.

    Attributes:
        at: int64 [m], positions in the batch.
        targets: int64 [m], 0 in rows without loss.
        hidden: [m, D] in the working dtype, 0 in rows without loss.
        upstream: what flows back, or None for values alone.
    """

    at: Tensor
    targets: Tensor
    hidden: Tensor
    upstream: Upstream | None

    def __getitem__(self, some: slice) -> Part:
        upstream = None if self.upstream is None else self.upstream[some]
        return Part(self.at[some], self.targets[some], self.hidden[some], upstream)


@dataclass(frozen=True)
class Sums:
    """Where gradients gather.

    Attributes:
        hidden: [M, D] in the accumulate dtype, or None where not wanted.
        items: [V, D] in the accumulate dtype, or None where not wanted.
    """

    hidden: Tensor | None
    items: Tensor | None


def push(slopes: Tensor, part: Part, table: Tensor, sums: Sums) -> None:
    """Adds to `sums` the gradients of both operands of logits, given the logits' `slopes` [m, V]."""
    slopes = slopes.to(table.dtype)
    if sums.hidden is not None:
        sums.hidden.index_add_(0, part.at, mm(slopes, table))
    if sums.items is not None:
        add_product_(sums.items, slopes.t(), part.hidden)
