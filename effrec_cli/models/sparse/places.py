"""Packed tables as places of numbers, a block of rows at a time, and what an update marks in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from effrec_kernels.packed import PackedRows
from torch import Tensor

BLOCK = 1 << 18
"""Numbers of the dense table that are looked at together."""


class Scores(Protocol):
    """How much the loss would change with each number of the dense table.

    Attributes:
        touched: bool [N], rows that may change; the others keep their places whatever their scores.
    """

    @property
    def touched(self) -> Tensor:
        """Bool [N]."""
        ...

    def block(self, low: int, high: int) -> Tensor:
        """Returns float32 [high - low, d] of 0 or more, the caller's own; 0 never grows."""
        ...


@dataclass(frozen=True)
class Part:
    """A packed table, and what its update goes by.

    Attributes:
        packed: the table.
        states: the optimizer's, each shaped like `packed.values`.
        scores: of all numbers of the dense table.
    """

    packed: PackedRows
    states: Sequence[Tensor]
    scores: Scores


class Table:
    """A packed table and its states, seen as places one after another.

    What is decided is kept as two flags a live number, `gone` and `back`.
    """

    def __init__(self, part: Part) -> None:
        packed = part.packed
        self.part, self.scores = part, part.scores
        self.dim, self.rows = packed.dim, packed.num_rows
        self.values, self.columns = packed.values.detach().view(-1), packed.columns.view(-1)
        self.arrays = [self.values, *(state.view(-1) for state in part.states)]
        self.offsets = packed.offsets
        self.width = 0 if packed.offsets is not None else packed.values.shape[1]
        self.gone = torch.zeros_like(self.values, dtype=torch.bool)
        self.back = torch.zeros_like(self.gone)
        self.touched = part.scores.touched
        self.spans = self._spans()

    def _spans(self) -> list[tuple[int, int]]:
        """Returns the stretches of rows to look at: all, or in rows of one size the touched."""
        step = max(1, BLOCK // self.dim)
        every = [(low, min(low + step, self.rows)) for low in range(0, self.rows, step)]
        some = [(low, high) for low, high in every if bool(self.touched[low:high].any())]
        return every if some and self.offsets is not None else some

    def bounds(self, low: int, high: int) -> Tensor:
        """Returns where each of some rows begins, and where the last ends, int64 [high - low + 1]."""
        if self.offsets is not None:
            return self.offsets[low : high + 1]
        return torch.arange(low, high + 1, device=self.values.device) * self.width

    def blocks(self) -> Iterator[Block]:
        """Yields where the numbers of its spans are."""
        for low, high in self.spans:
            bounds = self.bounds(low, high)
            first, last = int(bounds[0]), int(bounds[-1])
            rows = torch.repeat_interleave(bounds.diff(), output_size=last - first)
            at = rows * self.dim + self.columns[first:last].long()
            yield Block(self, low, high, slice(first, last), rows, at)

    def written(self, new: list[Tensor]) -> Part:
        """Returns the table with the new ones, block by block, in the place of those that are gone.

        It is changed in place where it keeps its size.
        """
        rewritten = (_rewritten(block, places) for block, places in zip(self.blocks(), new, strict=True))
        if self.offsets is None:
            for block, columns, source, _ in rewritten:
                self.columns[block.span] = columns
                for array in self.arrays:
                    array[block.span] = _taken(array, source)
            return self.part
        _, places, sources, sizes = zip(*rewritten, strict=True)
        columns, source = torch.cat(places), torch.cat(sources)
        if len(source) == len(self.values):
            self.columns.copy_(columns)
            self.offsets[1:] = torch.cat(sizes).cumsum(0)
            for array in self.arrays:
                array.copy_(_taken(array, source))
            return self.part
        offsets = torch.cat([self.offsets[:1], torch.cat(sizes).cumsum(0)])
        values, *states = (_taken(array, source)[:, None] for array in self.arrays)
        return Part(PackedRows(values, columns, self.dim, offsets), states, self.scores)


@dataclass(frozen=True)
class Block:
    """Rows `low` to `high` of a table.

    Attributes:
        table: whose.
        low: first row.
        high: the row after the last.
        span: places of their S numbers in the packed arrays.
        rows: int64 [S], the row of each number, counted from `low`.
        at: int64 [S], its place in the dense block, row by row.
    """

    table: Table
    low: int
    high: int
    span: slice
    rows: Tensor
    at: Tensor

    @property
    def gone(self) -> Tensor:
        """Which numbers are dropped, bool [S], to be written to."""
        return self.table.gone[self.span]

    @property
    def back(self) -> Tensor:
        """Which of those stay after all, bool [S], to be written to."""
        return self.table.back[self.span]

    @property
    def lost(self) -> Tensor:
        """Which numbers are dropped and do not stay, bool [S]."""
        return self.gone & ~self.back

    @property
    def sizes(self) -> Tensor:
        """Magnitudes of the numbers, float32 [S]."""
        return self.table.values[self.span].abs()

    @property
    def touched(self) -> Tensor:
        """Which rows may change, bool [high - low]."""
        return self.table.touched[self.low : self.high]


def _rewritten(block: Block, new: Tensor) -> tuple[Block, Tensor, Tensor, Tensor]:
    """Returns columns, where numbers come from (-1: nowhere), and rows' sizes, after the update."""
    kept, dim = ~block.lost, block.table.dim
    places = torch.arange(block.span.start, block.span.stop, device=new.device)
    at, order = torch.cat([block.at[kept], new]).sort()
    source = torch.cat([places[kept], torch.full_like(new, -1)])[order]
    sizes = torch.bincount(at // dim, minlength=block.high - block.low)
    return block, (at % dim).to(block.table.columns.dtype), source.to(torch.int32), sizes


def _taken(array: Tensor, source: Tensor) -> Tensor:
    """Returns the numbers at `source`; 0 where it is -1."""
    return array[source.clamp(min=0)].masked_fill_(source < 0, 0)
