"""What every route from rows to losses takes: a chunk of rows, and where gradients gather."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .groups import num_groups
from .objectives import Upstream
from .problem import Problem
from .products import add_product_, mm


@dataclass(frozen=True)
class Part:
    """A chunk of m rows, ready for arithmetic.

    Attributes:
        at: int64 [m], positions in the batch.
        targets: int64 [m], 0 in rows without loss.
        positives: int64 [m], rows of the table that are read for them: in a slice of the catalogue 0 for
            those that are elsewhere, whose logits then mean nothing and get no gradient.
        hidden: [m, D] in the working dtype, 0 in rows without loss.
        upstream: what flows back, or None for values alone.
    """

    at: Tensor
    targets: Tensor
    positives: Tensor
    hidden: Tensor
    upstream: Upstream | None

    def __getitem__(self, some: slice) -> Part:
        upstream = None if self.upstream is None else self.upstream[some]
        return Part(self.at[some], self.targets[some], self.positives[some], self.hidden[some], upstream)


@dataclass(frozen=True)
class ItemRows:
    """A gradient by items as rows: each group's negatives, then each row's target.

    Slots that hold no item name one that others hold, with values 0: so nothing that no one drew is in it,
    and the row numbers are those of a table.

    Attributes:
        ids: int64 [G N + M].
        values: [G N + M, D] in the accumulate dtype.
        shape: G and N.
    """

    ids: Tensor
    values: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, problem: Problem) -> ItemRows:
        """Returns all rows at 0, targets in their slots and no negative yet."""
        groups, number = num_groups(problem), problem.num_negatives
        live = problem.has_target
        # The first target there is; in a batch without any the first item, which gets nothing.
        some = torch.where(live, problem.targets, 0)
        if len(some):
            some = some.index_select(0, live.int().argmax().view(1))
        ids = some.expand(groups * number) if len(some) else problem.targets.new_zeros(groups * number)
        ids = torch.cat([ids, torch.where(live, problem.targets, some)])
        shape = len(ids), problem.items.shape[1]
        values = torch.zeros(shape, dtype=problem.accumulate_dtype, device=ids.device)
        return cls(ids, values, (groups, number))

    def negatives(self) -> tuple[Tensor, Tensor]:
        """Returns ids [G, N] and values [G, N, D], to be written to."""
        slots = self.shape[0] * self.shape[1]
        return self.ids[:slots].view(self.shape), self.values[:slots].view(*self.shape, -1)

    def positives(self) -> Tensor:
        """Returns values [M, D], to be written to."""
        return self.values[self.shape[0] * self.shape[1] :]


@dataclass(frozen=True)
class Sums:
    """Where gradients gather.

    Attributes:
        hidden: [M, D] in the accumulate dtype, or None where not wanted.
        items: [V, D] in the accumulate dtype, or None where not wanted.
        rows: in place of `items`, for a sparse gradient.
    """

    hidden: Tensor | None
    items: Tensor | None
    rows: ItemRows | None = None


def push(slopes: Tensor, part: Part, table: Tensor, sums: Sums) -> None:
    """Adds to `sums` the gradients of both operands of logits, given the logits' `slopes` [m, V]."""
    slopes = slopes.to(table.dtype)
    if sums.hidden is not None:
        sums.hidden.index_add_(0, part.at, mm(slopes, table))
    if sums.items is not None:
        add_product_(sums.items, slopes.t(), part.hidden)
