"""The route of rows that share their negatives: products of a group's rows with the group's negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import chunks
from .candidates import Packing, correction_term
from .groups import group_keys, grouped, negatives_of
from .objectives import Results, Upstream, objective_
from .parts import ItemRows, Part, Sums
from .picked import gather
from .problem import Problem
from .products import add_by_item, bmm, divide_, row_dots
from .samplers import fill_ids

# Logits, the products they are made of, and the mask of what cannot be used.
PAIR_BYTES = 16


@dataclass(frozen=True)
class Grid:
    """Rows of groups laid out as [g, w], each group from the left.

    Attributes:
        shape: groups and the rows of the largest.
        slots: int64 [m], the rows' places in the flat grid; None where they fill it in order.
    """

    shape: tuple[int, int]
    slots: Tensor | None

    @classmethod
    def of(cls, sizes: Tensor, num_rows: int) -> Grid:
        """Returns the grid of groups of these sizes, int64 [g], whose m rows come one after the other."""
        shape = len(sizes), int(sizes.max())
        if num_rows == shape[0] * shape[1]:
            return cls(shape, None)
        shift = torch.arange(shape[0], device=sizes.device) * shape[1] - (sizes.cumsum(0) - sizes)
        at = torch.arange(num_rows, device=sizes.device)
        return cls(shape, at + shift.repeat_interleave(sizes, output_size=num_rows))

    def spread(self, rows: Tensor) -> Tensor:
        """Returns [g w, ...] with `rows` [m, ...] in their places and 0 elsewhere."""
        if self.slots is None:
            return rows
        out = rows.new_zeros((self.shape[0] * self.shape[1], *rows.shape[1:]))
        return out.index_copy_(0, self.slots, rows)

    def collect(self, spread: Tensor) -> Tensor:
        """Returns [m, ...]: the rows out of their places."""
        return spread if self.slots is None else spread.index_select(0, self.slots)


@dataclass(frozen=True)
class Drawn:
    """The negatives of a chunk's groups.

    Attributes:
        firsts: int64 [g], where in the chunk each group's first row is.
        ids: int32 [g, N], safe to read; from a slice of the catalogue as many as a group has there at most.
        outside: bool [g, N], slots that hold no item; None where all do.
    """

    firsts: Tensor
    ids: Tensor
    outside: Tensor | None


class Shared:
    """Reads each group's negatives once; logits and both gradients are products of matrices.

    Groups of a chunk are padded to its largest; they come by size, so that this costs little. A group too
    large for a chunk is cut, and its negatives are drawn and read for each piece.

    Args:
        problem: what to compute.
    """

    def __init__(self, problem: Problem) -> None:
        number, width = problem.num_negatives, problem.items.shape[1]
        self.problem = problem
        group_bytes = number * width * problem.working_dtype.itemsize
        self.groups = chunks.gathered_rows(problem.chunk_bytes, group_bytes, problem.items.device)
        self.rows = chunks.rows_at_once(problem.chunk_bytes, PAIR_BYTES * (number + 1))

    def chunks(self, rows: Tensor) -> Iterator[Tensor]:
        """Yields the rows of whole groups as far as they fit, larger groups first."""
        by_group = grouped(self.problem, rows)
        start = end = count = widest = 0
        for size in self._pieces(by_group.sizes):
            widest = max(widest, size)
            if count and (count == self.groups or (count + 1) * widest > self.rows):
                yield by_group.at[start:end]
                start, count, widest = end, 0, size
            end, count = end + size, count + 1
        yield by_group.at[start:end]

    def _pieces(self, sizes: list[int]) -> Iterator[int]:
        """Yields the sizes of groups, cut where they are larger than a chunk."""
        for size in sizes:
            yield from (min(self.rows, size - start) for start in range(0, size, self.rows))

    def __call__(self, part: Part, sums: Sums) -> Results:
        """Returns loss and log-sum-exp [m], and adds the chunk's gradients to `sums`."""
        _, sizes = group_keys(self.problem, part.at).unique_consecutive(return_counts=True)
        grid = Grid.of(sizes, len(part.at))
        drawn = self._draw(part, sizes)
        own, others = self._gather(part.positives), self._gather(drawn.ids)
        hidden = grid.spread(part.hidden).view(*grid.shape, -1)
        logits = self._logits(grid, part, drawn, bmm(hidden, others.transpose(1, 2)))
        logits[:, 0] = grid.spread(divide_(row_dots(own, part.hidden), self.problem.temperature))
        results = objective_(self.problem, logits, _spread(grid, part.upstream))
        if part.upstream is not None:
            slopes = logits.to(others.dtype)
            self._push_rows(grid, part, slopes, own, others, sums)
            self._push_items(grid, part, slopes, drawn, hidden, sums)
        return tuple(grid.collect(result) for result in results)

    def _draw(self, part: Part, sizes: Tensor) -> Drawn:
        """Returns the groups' negatives."""
        problem = self.problem
        firsts = sizes.cumsum(0) - sizes
        ids = torch.empty(len(sizes), problem.num_negatives, dtype=torch.int32, device=sizes.device)
        fill_ids(problem, part.at.index_select(0, firsts), ids)
        if not problem.may_miss:
            return Drawn(firsts, ids, None)
        outside = (ids < 0) | (ids >= len(problem.items))
        # Any item that is read anyway: what is left out must not bring in a row that no one drew.
        some = part.positives.index_select(0, firsts).to(ids.dtype)[:, None]
        if problem.is_slice:
            pack = Packing.of(~outside)
            return Drawn(firsts, pack(ids, some), pack(outside, torch.ones_like(outside[:1, :1])))
        return Drawn(firsts, torch.where(outside, some, ids), outside)

    def _gather(self, ids: Tensor) -> Tensor:
        """Returns [..., D]: rows of the table in the working dtype."""
        problem = self.problem
        out = torch.empty(ids.numel(), problem.items.shape[1], dtype=problem.working_dtype, device=ids.device)
        return gather(problem, ids, out)

    def _logits(self, grid: Grid, part: Part, drawn: Drawn, products: Tensor) -> Tensor:
        """Returns [g w, N + 1]: negatives' logits, -inf where unusable for the row; column 0 is left open."""
        problem, ids = self.problem, drawn.ids
        targets = grid.spread(part.targets).view(*grid.shape, 1)
        unusable = ids[:, None, :] == targets
        if drawn.outside is not None:
            unusable |= drawn.outside[:, None, :]
        logits = products.new_empty(*grid.shape, ids.shape[1] + 1, dtype=problem.accumulate_dtype)
        k = correction_term(problem, unusable, ids[:, None, :])
        torch.add(divide_(products, problem.temperature), k, out=logits[:, :, 1:])
        logits[:, :, 1:].masked_fill_(unusable, float("-inf"))
        return logits.flatten(0, 1)

    def _push_rows(
        self, grid: Grid, part: Part, slopes: Tensor, own: Tensor, others: Tensor, sums: Sums
    ) -> None:
        """Writes the gradients of the chunk's rows."""
        if sums.hidden is None:
            return
        mixed = grid.collect(bmm(slopes[:, 1:].view(*grid.shape, -1), others).flatten(0, 1))
        of_positive = grid.collect(slopes[:, :1]).to(mixed.dtype)
        sums.hidden.index_copy_(0, part.at, mixed.addcmul_(of_positive, own.to(mixed.dtype)))

    def _push_items(
        self, grid: Grid, part: Part, slopes: Tensor, drawn: Drawn, hidden: Tensor, sums: Sums
    ) -> None:
        """Adds the gradients of the chunk's items: a row for each group's negative, then the positives'."""
        if sums.items is None and sums.rows is None:
            return
        dtype, room = self.problem.accumulate_dtype, self.problem.chunk_bytes
        of_negatives = bmm(slopes[:, 1:].view(*grid.shape, -1).transpose(1, 2), hidden)
        of_positive, states = grid.collect(slopes[:, :1]).to(dtype), part.hidden.to(dtype)
        if sums.rows is not None:
            self._write_rows(part, drawn, of_negatives, sums.rows)
            sums.rows.positives().index_copy_(0, part.at, of_positive * states)
        if sums.items is not None:
            ones = torch.ones(drawn.ids.numel(), 1, dtype=dtype, device=states.device)
            add_by_item(sums.items, drawn.ids.reshape(-1, 1), ones, of_negatives.flatten(0, 1), room)
            add_by_item(sums.items, part.positives.int()[:, None], of_positive, states, room)

    def _write_rows(self, part: Part, drawn: Drawn, of_negatives: Tensor, rows: ItemRows) -> None:
        """Puts the negatives of the chunk's groups in their slots; a group that was cut comes again."""
        ids, sums = rows.negatives()
        groups = negatives_of(self.problem, part.at.index_select(0, drawn.firsts))
        found = drawn.ids.long()
        if drawn.outside is not None:
            found = torch.where(drawn.outside, ids.index_select(0, groups), found)
        ids.index_copy_(0, groups, found)
        sums.index_add_(0, groups, of_negatives)


def _spread(grid: Grid, upstream: Upstream | None) -> Upstream | None:
    """Returns what flows back into the rows in their places, 0 elsewhere."""
    if upstream is None:
        return None
    return Upstream(grid.spread(upstream.loss), None if upstream.lse is None else grid.spread(upstream.lse))
