"""Two ways from rows to losses against a few candidates: gather their rows, or score all items and pick."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from . import chunks
from .candidates import candidates
from .objectives import Results, objective_
from .parts import Part, Sums, push
from .problem import Problem
from .products import add_by_item, add_row_products_, mm, row_mixtures


class Gathered:
    """Reads each candidate's row of the table, a few rows of the chunk at a time.

    Args:
        problem: what to compute.
    """

    def __init__(self, problem: Problem) -> None:
        candidates, width = problem.num_negatives + 1, problem.items.shape[1]
        self.problem = problem
        fitting = chunks.rows_at_once(problem.chunk_bytes, chunks.PAIR_BYTES * candidates)
        self.rows = min(len(problem.targets), fitting)
        row_bytes = candidates * width * problem.working_dtype.itemsize
        self.step = min(self.rows, chunks.gathered_rows(problem.chunk_bytes, row_bytes, problem.items.device))
        shape = (self.step * candidates, width)
        # One buffer for all gathers: fresh pages cost more than the gather itself.
        self.buffer = torch.empty(shape, dtype=problem.working_dtype, device=problem.items.device)

    def chunks(self, rows: Tensor) -> Iterable[Tensor]:
        """Returns the rows a chunk of candidates at a time."""
        return rows.split(self.rows)

    def __call__(self, part: Part, sums: Sums) -> Results:
        """Returns loss and log-sum-exp [m], and adds the chunk's gradients to `sums`."""
        ids, logits = candidates(self.problem, part, torch.int32)
        results = [
            self._score(part[some], ids[some], logits[some], sums.hidden)
            for some in chunks.slices(len(ids), self.step)
        ]
        if sums.items is not None:
            states = part.hidden.to(sums.items.dtype)
            add_by_item(sums.items, ids, logits, states, self.problem.chunk_bytes)
        return tuple(torch.cat(pieces) for pieces in zip(*results, strict=True))

    def _score(self, part: Part, ids: Tensor, logits: Tensor, into: Tensor | None) -> Results:
        """Returns loss and log-sum-exp; turns `logits` into their gradients and writes rows of `into`."""
        matrices = self._gather(ids)
        add_row_products_(logits, matrices, part.hidden, 1 / self.problem.temperature)
        result = objective_(self.problem, logits, part.upstream)
        if into is not None:
            into.index_copy_(0, part.at, row_mixtures(logits, matrices))
        return result

    def _gather(self, ids: Tensor) -> Tensor:
        """Returns [m, S, D]: the candidates' rows of the table in the working dtype."""
        return gather(self.problem, ids, self.buffer[: ids.numel()])


def gather(problem: Problem, ids: Tensor, out: Tensor) -> Tensor:
    """Returns [..., D]: rows `ids` of the table in the working dtype, written into `out` [ids.numel(), D]."""
    items, flat = problem.items, ids.flatten()
    if items.dtype == problem.compute_dtype == out.dtype:
        torch.index_select(items, 0, flat, out=out)
    else:
        out.copy_(problem.working(items.index_select(0, flat)))
    return out.view(*ids.shape, -1)


class Dense:
    """Scores every item by one matrix product and picks the candidates' logits: for small catalogues.

    Rows of the table that no one drew are multiplied by zero, so the whole table must be finite.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.table = problem.working(problem.items)
        pair_bytes = chunks.PAIR_BYTES * (problem.num_negatives + 1)
        self.rows = chunks.rows_at_once(problem.chunk_bytes, 4 * len(problem.items) + pair_bytes)

    def chunks(self, rows: Tensor) -> Iterable[Tensor]:
        """Returns the rows a chunk of scores at a time."""
        return rows.split(self.rows)

    def __call__(self, part: Part, sums: Sums) -> Results:
        """Returns loss and log-sum-exp [m], and adds the chunk's gradients to `sums`."""
        ids, logits = candidates(self.problem, part, torch.int64)
        scores = mm(part.hidden, self.table.t())
        logits.add_(scores.gather(1, ids), alpha=1 / self.problem.temperature)
        result = objective_(self.problem, logits, part.upstream)
        if part.upstream is not None:
            push(scores.zero_().scatter_add_(1, ids, logits), part, self.table, sums)
        return result
