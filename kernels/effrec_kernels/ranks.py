"""The processes that hold a catalogue's slices, and what they send each other."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# The numbers that ranks tell each other at the start of a call.
_OK, _FIRST, _COUNT, _ROWS, _BOUNDARIES, _FINGERPRINT = range(6)


@dataclass(frozen=True)
class Slice:
    """The items of one rank.

    Attributes:
        first: number of the first in the catalogue.
        count: how many there are.
    """

    first: int
    count: int


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
        _gather(out, padded, self.group)
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


@dataclass(frozen=True)
class Meeting:
    """What a rank comes to a call with.

    Attributes:
        group: None is the default one.
        num_items: V.
        mine: this rank's items.
        rows: how many rows it brings.
        boundaries: how many boundaries of sequences.
        replicated: whether all ranks bring the same rows.
        options: what must be the same on all ranks; its `repr` is compared.
        check: raises where this rank's arguments are wrong.
    """

    group: dist.ProcessGroup | None
    num_items: int
    mine: Slice
    rows: int
    boundaries: int
    replicated: bool
    options: Any
    check: Callable[[], None]

    def hold(self, device: torch.device) -> Ranks:
        """Returns the ranks, once each has been heard: one all-gather of 48 bytes, read on the host.

        Raises:
            ValueError: on every rank, where arguments do not fit together, or slices do not make up the
                catalogue. A rank whose own arguments are wrong raises what is wrong with them.
        """
        rank, size = place(self.group)
        fault = self._fault()
        told = self._told(fault, device)
        if size > 1:
            gathered = told.new_empty(size * len(told))
            _gather(gathered, told, self.group)
            told = gathered
        everyone = told.view(size, -1).tolist()
        if fault is not None:
            raise fault
        _check_agreement(everyone, self.replicated)
        check_slices([Slice(one[_FIRST], one[_COUNT]) for one in everyone], self.num_items)
        rows, boundaries = (tuple(one[at] for one in everyone) for at in (_ROWS, _BOUNDARIES))
        return Ranks(self.group, rank, size, rows, boundaries, self.replicated)

    def _fault(self) -> Exception | None:
        try:
            self.check()
        except Exception as fault:
            return fault
        return None

    def _told(self, fault: Exception | None, device: torch.device) -> Tensor:
        compared = repr((self.num_items, self.replicated, self.options)).encode()
        numbers = [
            int(fault is None), self.mine.first, self.mine.count, self.rows, self.boundaries,
            zlib.crc32(compared),
        ]  # fmt: skip
        return torch.tensor(numbers, dtype=torch.int64, device=device)


def _check_agreement(everyone: list[list[int]], replicated: bool) -> None:
    """Raises ValueError where a rank refused its arguments, or has others than rank 0."""
    for rank, one in enumerate(everyone):
        if not one[_OK]:
            raise ValueError(f"rank {rank} was given arguments that it refuses; its own error says which")
        if one[_FINGERPRINT] != everyone[0][_FINGERPRINT]:
            raise ValueError(
                f"ranks 0 and {rank} were given different options: all but rows, their weights and the slice "
                "must be the same on every rank: dtypes, seed, step, a row_offset that is a number, and what "
                "wants a gradient"
            )
        if replicated and one[_ROWS] != everyone[0][_ROWS]:
            raise ValueError(
                f"with replicated=True all ranks bring the same rows, but rank 0 brings {everyone[0][_ROWS]} "
                f"and rank {rank} brings {one[_ROWS]}"
            )


def check_slices(slices: Sequence[Slice], num_items: int) -> None:
    """Raises ValueError unless the ranks' slices make up the catalogue, each item on one rank."""
    end = 0
    for first, count, rank in sorted((one.first, one.count, rank) for rank, one in enumerate(slices)):
        if first < end:
            raise ValueError(
                f"{_named(first, min(end, first + count))} are on rank {rank} and on another one"
            )
        if first > end:
            raise ValueError(f"{_named(end, first)} are on no rank")
        end = first + count
    if end != num_items:
        what = "are on no rank" if end < num_items else f"are beyond the catalogue of {num_items}"
        raise ValueError(f"{_named(*sorted((end, num_items)))} {what}")


def _named(first: int, after: int) -> str:
    return f"items {first} to {after - 1}"


def _padded(rows: Tensor, count: int) -> Tensor:
    """Returns `rows` contiguous, with zeros behind them to `count`."""
    if len(rows) == count:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])


# PyTorch 2.13 has renamed the two that follow.
def _gather(out: Tensor, own: Tensor, group: dist.ProcessGroup | None) -> None:
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, own, group=group)


def _scatter_sums(out: Tensor, whole: Tensor, group: dist.ProcessGroup | None) -> None:
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(out, whole, group=group)
