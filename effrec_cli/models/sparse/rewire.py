"""Drop and grow: a packed table's smallest numbers make room for others, and the budget stays what it was.

The rule is that of papers/dsl sections 1.1 and 4.4. Work goes over blocks of rows, so that nothing as large
as the dense table is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from effrec_kernels.packed import PackedRows
from torch import Tensor

from effrec_cli.models.sparse.choose import limit

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
class Rule:
    """What is dropped and what may grow.

    Attributes:
        share: r_t, of the live numbers in touched rows; rounded up.
        within_rows: each row grows as many as it drops, as a table with k numbers a row needs.
        signed: drop the share of the smallest positive and of the largest negative numbers (SET) in place of
            the smallest magnitudes.
        regrow: whether what is dropped may grow again in the same update; it then keeps number and state.
    """

    share: float
    within_rows: bool
    signed: bool = False
    regrow: bool = True


@dataclass(frozen=True)
class Moved:
    """What an update did, in numbers of the table.

    Attributes:
        dropped: chosen to go.
        grown: new ones, which start at 0.
        regrown: dropped ones that their own gradient brought back, with `Rule.regrow`.
        restored: dropped ones that stay because too few others have a gradient.
    """

    dropped: int = 0
    grown: int = 0
    regrown: int = 0
    restored: int = 0

    def __add__(self, other: Moved) -> Moved:
        """Returns what both did."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Moved(*(mine + theirs for mine, theirs in pairs))


@torch.no_grad()
def rewire(packed: PackedRows, states: Sequence[Tensor], scores: Scores, rule: Rule) -> Moved:
    """Moves numbers of a packed table, in place, to where the loss asks for them.

    The number of live places is the same before and after. Grown ones are 0, in the table and in all states.
    Of equals those of the first row and column are dropped, and grown.

    Args:
        packed: the table.
        states: the optimizer's, each shaped like `packed.values`.
        scores: of all numbers of the dense table.
        rule: what is dropped and what may grow.

    Returns:
        what was done.
    """
    table = _Table(packed, states)
    spans = table.spans(scores.touched)
    if not spans:
        return Moved()
    change = _Change(table, spans, scores, rule)
    change.drop()
    if rule.within_rows:
        change.grow_within_rows()
    else:
        change.grow_anywhere()
    change.write()
    return change.moved


class _Table:
    """A packed table and its states, seen as places one after another."""

    def __init__(self, packed: PackedRows, states: Sequence[Tensor]) -> None:
        self.dim, self.rows = packed.dim, packed.num_rows
        self.values, self.columns = packed.values.detach().view(-1), packed.columns.view(-1)
        self.arrays = [self.values, *(state.view(-1) for state in states)]
        self.offsets = packed.offsets
        self.width = 0 if packed.offsets is not None else packed.values.shape[1]

    def spans(self, touched: Tensor) -> list[tuple[int, int]]:
        """Returns the stretches of rows to look at: all, or in rows of one size the touched."""
        step = max(1, BLOCK // self.dim)
        every = [(low, min(low + step, self.rows)) for low in range(0, self.rows, step)]
        some = [(low, high) for low, high in every if bool(touched[low:high].any())]
        return every if some and self.offsets is not None else some

    def bounds(self, low: int, high: int) -> Tensor:
        """Returns where each of some rows begins, and where the last ends, int64 [high - low + 1]."""
        if self.offsets is not None:
            return self.offsets[low : high + 1]
        return torch.arange(low, high + 1, device=self.values.device) * self.width

    def block(self, low: int, high: int) -> _Block:
        """Returns where the numbers of some rows are."""
        bounds = self.bounds(low, high)
        first, last = int(bounds[0]), int(bounds[-1])
        rows = torch.repeat_interleave(bounds.diff(), output_size=last - first)
        return _Block(low, high, first, last, rows, rows * self.dim + self.columns[first:last].long())


@dataclass(frozen=True)
class _Block:
    """Rows `low` to `high` of the table.

    Attributes:
        low: first row.
        high: the row after the last.
        first: place of their first number in the packed arrays.
        last: the place after the last.
        rows: int64 [S], the row of each number, counted from `low`.
        at: int64 [S], its place in the dense block, row by row.
    """

    low: int
    high: int
    first: int
    last: int
    rows: Tensor
    at: Tensor


class _Change:
    """One update, step by step.

    What is decided is kept as two flags a live number, `gone` and `back`, and the places of the new ones.
    """

    def __init__(self, table: _Table, spans: list[tuple[int, int]], scores: Scores, rule: Rule) -> None:
        self.table, self.spans, self.scores, self.rule = table, spans, scores, rule
        self.gone = torch.zeros_like(table.values, dtype=torch.bool)
        self.back = torch.zeros_like(self.gone)
        self.new: list[Tensor] = []
        self.moved = Moved()

    def blocks(self) -> Iterator[_Block]:
        """Yields the blocks of the spans."""
        return (self.table.block(low, high) for low, high in self.spans)

    def drop(self) -> None:
        """Marks what goes."""
        for sign in (1, -1) if self.rule.signed else (0,):
            self._drop_of(sign)

    def _drop_of(self, sign: int) -> None:
        def sizes() -> Iterator[Tensor]:
            return map(self._size, self._droppable(sign))

        live = sum(len(places) for places in self._droppable(sign))
        count = math.ceil(self.rule.share * live)
        end = limit(sizes, count, largest=False)
        for places, taken in zip(self._droppable(sign), end.taken(sizes()), strict=True):
            self.gone[places[taken]] = True
        self.moved += Moved(dropped=count)

    def _droppable(self, sign: int) -> Iterator[Tensor]:
        """Yields places of live numbers in touched rows, block by block; with a sign, those that have it."""
        for block in self.blocks():
            places = torch.arange(block.first, block.last, device=self.gone.device)
            places = places[self.scores.touched[block.low : block.high][block.rows]]
            if sign:
                values = self.table.values[places]
                places = places[values < 0 if sign < 0 else values >= 0]
            yield places

    def _size(self, places: Tensor) -> Tensor:
        return self.table.values[places].abs()

    def _candidates(self, block: _Block) -> Tensor:
        """Returns how much each number of the dense block asks to grow, float32 [rows * d]; 0 may not."""
        asked = self.scores.block(block.low, block.high).nan_to_num(0, 0, 0).view(-1)
        live = ~self.gone[block.first : block.last] if self.rule.regrow else slice(None)
        asked[block.at[live]] = 0
        untouched = ~self.scores.touched[block.low : block.high]
        asked.view(-1, self.table.dim)[untouched] = 0
        return asked

    def grow_within_rows(self) -> None:
        """Lets each row grow as many as it drops: by score, then what it dropped last."""
        for block in self.blocks():
            gone = self.gone[block.first : block.last]
            rows = block.high - block.low
            wanted = torch.bincount(block.rows[gone], minlength=rows)
            asked, order = _descending(self._candidates(block).view(rows, -1))
            grown = _first(wanted, asked > 0)
            self._accept(block, (order + _row_starts(order))[grown].sort().values)
            missing = wanted - grown.sum(1)
            sizes, order = _descending(self._lost_by_rows(block))
            again = (order + _row_starts(order))[_first(missing, sizes >= 0)]
            self._restore(block, torch.isin(block.at, again))

    def _lost_by_rows(self, block: _Block) -> Tensor:
        """Returns the sizes of dropped numbers that have not come back, float32 [rows, d]; -1 elsewhere."""
        lost, values = self._lost(block), self.table.values[block.first : block.last]
        sizes = values.new_full(((block.high - block.low) * self.table.dim,), -1)
        return sizes.index_copy_(0, block.at[lost], values[lost].abs()).view(-1, self.table.dim)

    def grow_anywhere(self) -> None:
        """Lets the largest scores of all touched rows grow, and then what was dropped last."""
        wanted = self.moved.dropped
        there = sum(int((self._candidates(block) > 0).sum()) for block in self.blocks())
        end = limit(self._asked, min(wanted, there), largest=True)
        for block, taken in zip(self.blocks(), end.taken(self._asked()), strict=True):
            self._accept(block, (self._candidates(block) > 0).nonzero().squeeze(1)[taken])
        missing = wanted - self.moved.grown - self.moved.regrown
        end = limit(self._lost_sizes, missing, largest=True)
        for block, taken in zip(self.blocks(), end.taken(self._lost_sizes()), strict=True):
            lost = self._lost(block)
            lost[lost.clone()] = taken
            self._restore(block, lost)

    def _asked(self) -> Iterator[Tensor]:
        for block in self.blocks():
            asked = self._candidates(block)
            yield asked[asked > 0]

    def _lost(self, block: _Block) -> Tensor:
        """Returns which live numbers of a block are dropped and have not come back, bool [S]."""
        return self.gone[block.first : block.last] & ~self.back[block.first : block.last]

    def _lost_sizes(self) -> Iterator[Tensor]:
        for block in self.blocks():
            yield self.table.values[block.first : block.last][self._lost(block)].abs()

    def _accept(self, block: _Block, picked: Tensor) -> None:
        """Takes places of the dense block, rising, as those that grow, or come back."""
        returns = self.gone[block.first : block.last] & torch.isin(block.at, picked)
        self.back[block.first : block.last] |= returns
        self.new.append(picked[~torch.isin(picked, block.at[returns])])
        self.moved += Moved(grown=len(self.new[-1]), regrown=int(returns.sum()))

    def _restore(self, block: _Block, again: Tensor) -> None:
        """Lets dropped numbers, bool [S], stay after all."""
        self.back[block.first : block.last] |= again
        self.moved += Moved(restored=int(again.sum()))

    def write(self) -> None:
        """Puts the new ones in the place of those that are gone."""
        rewritten = (self._rewritten(block, new) for block, new in zip(self.blocks(), self.new, strict=True))
        if self.table.offsets is None:
            for block, columns, source, _ in rewritten:
                self.table.columns[block.first : block.last] = columns
                for array in self.table.arrays:
                    array[block.first : block.last] = _taken(array, source)
            return
        _, places, sources, sizes = zip(*rewritten, strict=True)
        self.table.columns.copy_(torch.cat(places))
        self.table.offsets[1:] = torch.cat(sizes).cumsum(0)
        whole = torch.cat(sources)
        for array in self.table.arrays:
            array.copy_(_taken(array, whole))

    def _rewritten(self, block: _Block, new: Tensor) -> tuple[_Block, Tensor, Tensor, Tensor]:
        """Returns columns, where numbers come from (-1: nowhere), and rows' sizes, after the update."""
        kept = ~self._lost(block)
        places = torch.arange(block.first, block.last, device=new.device)
        at, order = torch.cat([block.at[kept], new]).sort()
        source = torch.cat([places[kept], torch.full_like(new, -1)])[order]
        sizes = torch.bincount(at // self.table.dim, minlength=block.high - block.low)
        return block, (at % self.table.dim).to(self.table.columns.dtype), source.to(torch.int32), sizes


def _descending(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows [r, d] from large to small, of equals the first first, and the columns they come from."""
    found = numbers.sort(dim=1, descending=True, stable=True)
    return found.values, found.indices


def _first(counts: Tensor, fit: Tensor) -> Tensor:
    """Returns which are among the first `counts` [r] of their row, as far as they fit, bool [r, d]."""
    return (torch.arange(fit.shape[1], device=fit.device) < counts[:, None]) & fit


def _row_starts(like: Tensor) -> Tensor:
    """Returns where each row of a dense block [r, d] begins, int64 [r, 1]."""
    return torch.arange(len(like), device=like.device)[:, None] * like.shape[1]


def _taken(array: Tensor, source: Tensor) -> Tensor:
    """Returns the numbers at `source`; 0 where it is -1."""
    return array[source.clamp(min=0)].masked_fill_(source < 0, 0)
