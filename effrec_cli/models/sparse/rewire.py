"""Drop and grow: a packed table's smallest numbers make room for others, and the budget stays what it was.

The rule is that of papers/dsl sections 1.1 and 4.4. Work goes over blocks of rows, so that nothing as large
as the dense table is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from effrec_kernels.packed import PackedRows
from torch import Tensor

from effrec_cli.models.sparse.choose import limit
from effrec_cli.models.sparse.places import Block, Part, Scores, Table


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
    return rewire_together([Part(packed, states, scores)], rule)[1]


@torch.no_grad()
def rewire_together(parts: Sequence[Part], rule: Rule) -> tuple[list[Part], Moved]:
    """Moves numbers of packed tables, which share one budget unless `rule.within_rows`.

    The smallest of all are dropped and the largest scores of all grow, as if the tables were one; of equals
    those of the first table. How many each has may change, their sum does not.

    Args:
        parts: the tables. Those that keep their size are changed in place.
        rule: what is dropped and what may grow.

    Returns:
        the parts, others in place of those that do not keep their size; and what was done.
    """
    tables = [Table(part) for part in parts]
    change = _Change(tables, rule)
    if not any(table.spans for table in tables):
        return list(parts), change.moved
    change.drop()
    if rule.within_rows:
        change.grow_within_rows()
    else:
        change.grow_anywhere()
    return change.written(), change.moved


class _Change:
    """One update of tables, step by step; `new` has the places of what grows, block by block."""

    def __init__(self, tables: list[Table], rule: Rule) -> None:
        self.tables, self.rule = tables, rule
        self.new: list[list[Tensor]] = [[] for _ in tables]
        self.moved = Moved()

    def blocks(self) -> Iterator[Block]:
        """Yields the blocks of all tables."""
        return chain.from_iterable(table.blocks() for table in self.tables)

    def drop(self) -> None:
        """Marks what goes."""
        for sign in (1, -1) if self.rule.signed else (0,):
            self._drop_of(sign)

    def _drop_of(self, sign: int) -> None:
        def sizes() -> Iterator[Tensor]:
            return (block.sizes[places] for block, places in self._droppable(sign))

        live = sum(len(places) for _, places in self._droppable(sign))
        count = math.ceil(self.rule.share * live)
        end = limit(sizes, count, largest=False)
        for (block, places), taken in zip(self._droppable(sign), end.taken(sizes()), strict=True):
            block.gone[places[taken]] = True
        self.moved += Moved(dropped=count)

    def _droppable(self, sign: int) -> Iterator[tuple[Block, Tensor]]:
        """Yields live numbers in touched rows, as places in their block; with a sign, those that have it."""
        for block in self.blocks():
            places = block.touched[block.rows].nonzero().squeeze(1)
            if sign:
                values = block.table.values[block.span][places]
                places = places[values < 0 if sign < 0 else values >= 0]
            yield block, places

    def _candidates(self, block: Block) -> Tensor:
        """Returns how much each number of the dense block asks to grow, float32 [rows * d]; 0 may not."""
        asked = block.table.scores.block(block.low, block.high).nan_to_num(0, 0, 0)
        asked[~block.touched] = 0
        asked = asked.view(-1)
        asked[block.at[~block.gone if self.rule.regrow else slice(None)]] = 0
        return asked

    def grow_within_rows(self) -> None:
        """Lets each row grow as many as it drops: by score, then what it dropped last."""
        for number, block in self._numbered():
            rows = block.high - block.low
            wanted = torch.bincount(block.rows[block.gone], minlength=rows)
            asked, order = _descending(self._candidates(block).view(rows, -1))
            grown = _first(wanted, asked > 0)
            self._accept(number, block, (order + _row_starts(order))[grown].sort().values)
            missing = wanted - grown.sum(1)
            sizes, order = _descending(self._lost_by_rows(block))
            again = (order + _row_starts(order))[_first(missing, sizes >= 0)]
            self._restore(block, torch.isin(block.at, again))

    def _numbered(self) -> Iterator[tuple[int, Block]]:
        """Yields the blocks of all tables, with the numbers of these."""
        return ((number, block) for number, table in enumerate(self.tables) for block in table.blocks())

    def _lost_by_rows(self, block: Block) -> Tensor:
        """Returns the sizes of dropped numbers that have not come back, float32 [rows, d]; -1 elsewhere."""
        lost, dim = block.lost, block.table.dim
        sizes = block.sizes.new_full(((block.high - block.low) * dim,), -1)
        return sizes.index_copy_(0, block.at[lost], block.sizes[lost]).view(-1, dim)

    def grow_anywhere(self) -> None:
        """Lets the largest scores of all touched rows grow, and then what was dropped last."""
        wanted = self.moved.dropped
        there = sum(int((self._candidates(block) > 0).sum()) for block in self.blocks())
        end = limit(self._asked, min(wanted, there), largest=True)
        for (number, block), taken in zip(self._numbered(), end.taken(self._asked()), strict=True):
            self._accept(number, block, (self._candidates(block) > 0).nonzero().squeeze(1)[taken])
        missing = wanted - self.moved.grown - self.moved.regrown
        end = limit(self._lost_sizes, missing, largest=True)
        for block, taken in zip(self.blocks(), end.taken(self._lost_sizes()), strict=True):
            lost = block.lost
            lost[lost.clone()] = taken
            self._restore(block, lost)

    def _asked(self) -> Iterator[Tensor]:
        for block in self.blocks():
            asked = self._candidates(block)
            yield asked[asked > 0]

    def _lost_sizes(self) -> Iterator[Tensor]:
        return (block.sizes[block.lost] for block in self.blocks())

    def _accept(self, number: int, block: Block, picked: Tensor) -> None:
        """Takes places of the dense block, rising, as those that grow, or come back."""
        returns = block.gone & torch.isin(block.at, picked)
        block.back.logical_or_(returns)
        grown = picked[~torch.isin(picked, block.at[returns])]
        self.new[number].append(grown)
        self.moved += Moved(grown=len(grown), regrown=int(returns.sum()))

    def _restore(self, block: Block, again: Tensor) -> None:
        """Lets dropped numbers, bool [S], stay after all."""
        block.back.logical_or_(again)
        self.moved += Moved(restored=int(again.sum()))

    def written(self) -> list[Part]:
        """Returns the tables with their new numbers."""
        pairs = zip(self.tables, self.new, strict=True)
        return [table.written(new) if table.spans else table.part for table, new in pairs]


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
