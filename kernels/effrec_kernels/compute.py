"""The loop over chunks of rows: losses, and their gradients where asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import chunks
from .checks import check_ids
from .full import Full
from .objectives import Upstream
from .parts import Part, Sums
from .picked import Dense, Gathered
from .problem import Problem

Route = Callable[[Part, Sums], tuple[Tensor, Tensor]]


def compute(problem: Problem, upstream: Upstream | None, sums: Sums) -> tuple[Tensor, Tensor]:
    """Returns loss and log-sum-exp [M] of all rows, zero where there is no target.

    Args:
        problem: what to compute.
        upstream: what flows back into each row; None for values alone.
        sums: where gradients are added; zeros on entry.
    """
    check_ids(problem)
    zeros = torch.zeros(len(problem.targets), dtype=problem.accumulate_dtype, device=problem.hidden.device)
    loss, lse = zeros, zeros.clone()
    rows = _rows_to_visit(problem)
    if len(rows) == 0:
        return loss, lse
    # Autocast would round inside products whose operands and sums were chosen here.
    with torch.autocast(problem.hidden.device.type, enabled=False):
        route, size = choose_route(problem)
        for at in rows.split(size):
            valid = problem.targets.index_select(0, at) != problem.ignore_index
            part_loss, part_lse = route(_part(problem, at, valid, upstream), sums)
            loss.index_copy_(0, at, part_loss.masked_fill_(~valid, 0))
            lse.index_copy_(0, at, part_lse.masked_fill_(~valid, 0))
    return loss, lse


def choose_route(problem: Problem) -> tuple[Route, int]:
    """Returns the cheapest route for the problem, and how many rows it takes at a time."""
    num_items, num_rows = len(problem.items), len(problem.targets)
    if problem.num_negatives == 0:
        rows, width = chunks.full_block(num_rows, num_items, problem.chunk_bytes)
        return Full(problem, width), rows
    pairs = chunks.PAIR_BYTES * (problem.num_negatives + 1)
    if chunks.dense_is_cheaper(num_items, problem.num_negatives, problem.hidden.device):
        return Dense(problem), chunks.rows_at_once(problem.chunk_bytes, 4 * num_items + pairs)
    rows = min(num_rows, chunks.rows_at_once(problem.chunk_bytes, pairs))
    return Gathered(problem, rows), rows


def _rows_to_visit(problem: Problem) -> Tensor:
    """Returns the positions of rows to compute: those with a target, or all where counting would sync."""
    if problem.targets.device.type == "cpu":
        return (problem.targets != problem.ignore_index).nonzero().squeeze(1)
    return torch.arange(len(problem.targets), device=problem.targets.device)


def _part(problem: Problem, at: Tensor, valid: Tensor, upstream: Upstream | None) -> Part:
    """Returns the chunk at positions `at`; rows without loss are blanked, so that nothing in them leaks."""
    hidden = problem.working(problem.hidden.index_select(0, at))
    return Part(
        at=at,
        targets=problem.targets.index_select(0, at).masked_fill_(~valid, 0),
        hidden=hidden.masked_fill(~valid[:, None], 0),
        upstream=None if upstream is None else upstream.take(at, valid),
    )
