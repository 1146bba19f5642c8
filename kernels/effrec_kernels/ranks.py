"""The processes that hold a catalogue's slices, and what they send each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The ranks of a group, and the rows that each brings.

    Attributes:
        group: None is the default one.
        rank: this process.
        size: processes in all; with one nothing is sent.
        rows: how many rows each rank brings.
        boundaries: how many boundaries of sequences.
        replicated: whether all bring the same rows, which are then not gathered.
    """

    group: dist.ProcessGroup | None
    rank: int
    size: int
    rows: tuple[int, ...]
    boundaries: tuple[int, ...]
    replicated: bool

    @property
    def start(self) -> int:
        """The position of the first own row among all."""
        return 0 if self.replicated else sum(self.rows[: self.rank])

    def own(self, rows: Tensor) -> Tensor:
        """Returns this rank's of all rows [M, ...]."""
        return rows if self.replicated else rows[self.start : self.start + self.rows[self.rank]]

    def gather(self, own: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Returns the rows [M_r, ...] of all ranks one after the other, [M, ...]; `counts` are by rank."""
        counts = self.rows if counts is None else counts
        widest = max(counts)
        if self.size == 1 or self.replicated or widest == 0:
            return own
        padded = _padded(own, widest)
        out = padded.new_empty(self.size * widest, *own.shape[1:])
        gather_into(out, padded, self.group)
        if min(counts) == widest:
            return out
        pieces = zip(out.split(widest), counts, strict=True)
        return torch.cat([piece[:count] for piece, count in pieces])

    def sum_to_owners(self, partial: Tensor) -> Tensor:
        """Returns the sums over ranks of [M, ...], each rank's own rows [M_r, ...]."""
        if self.size == 1 or partial.numel() == 0:
            return partial
        if self.replicated:
            return self.sum_(partial)
        widest, own = max(self.rows), self.rows[self.rank]
        if min(self.rows) != widest:
            partial = torch.cat([_padded(piece, widest) for piece in partial.split(self.rows)])
        out = partial.new_empty(widest, *partial.shape[1:])
        _scatter_sums(out, partial.contiguous(), self.group)
        return out[:own]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its sum over ranks."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its maximum over ranks."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.group)
        return tensor

    def total(self, number: Tensor) -> Tensor:
        """Returns the sum over ranks of a number that each made of its own rows.

        The result is one number that every rank has, so what flows back into it is the same everywhere and is
        passed on as it is.
        """
        return number if self.size == 1 or self.replicated else _Total.apply(number, self)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, number: Tensor, ranks: Ranks) -> Tensor:
        return ranks.sum_(number.clone())

    @staticmethod
    def backward(ctx: Any, *of_total: Any) -> tuple[Tensor, None]:
        return of_total[0], None


def place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Returns this process's rank in the group and the group's size; a process without ranks is alone."""
    if group is None and not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("this process is no member of the group")
    return rank, dist.get_world_size(group)


def _padded(rows: Tensor, count: int) -> Tensor:
    """Returns `rows` contiguous, with zeros behind them to `count`."""
    if len(rows) == count:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])


# PyTorch 2.13 has renamed what the two that follow call.
def gather_into(out: Tensor, own: Tensor, group: dist.ProcessGroup | None) -> None:
    """Fills `out` with what each rank has in `own`, as many numbers each, in rank order."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, own, group=group)


def _scatter_sums(out: Tensor, whole: Tensor, group: dist.ProcessGroup | None) -> None:
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(out, whole, group=group)
