"""The gradient by items: candidates drawn and scored again, and what rows give them summed in float32.

Sums are made by atomics, in whatever order programs come; or, for the same bits each time, pairs of an item
and what it is given are written down, sorted by item and added run by run. That takes a workspace: PAIR_BYTES
a pair, and D float32 numbers more where a group's negatives are given sums; so many pairs at a time as fit
`Problem.chunk_bytes`. Only that setting, and sizes of blocks by GPU and compiler, decide the order of sums.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..chunks import rows_at_once, slices
from ..parts import ItemRows
from ..problem import Problem
from .blocks import positive_blocks, row_blocks, segment_blocks
from .device.positives import positives_backward
from .device.rows import rows_backward
from .device.segments import add_segments
from .device.tiles import tiles_backward
from .launch import (
    DTYPES,
    Arguments,
    Tiling,
    arguments_of,
    is_by_row,
    is_finer,
    launch,
    tiling_of,
)

# An id, a slope, and the keys, order and scratch space of the sort.
PAIR_BYTES = 40
# Where all rows share one set, rows are dealt to so many programs that every multiprocessor has some.
_WANTED_PROGRAMS = 512


def backward_items(
    problem: Problem, loss: Tensor, shift: Tensor, of_loss: Tensor, of_lse: Tensor | None
) -> Tensor:
    """Returns float32 [V, D]: the gradient by items.

    Args:
        problem: what forward computed.
        loss: float32 [M], as forward gave it.
        shift: float32 [M], too.
        of_loss: float32 [M], what flows into each row's loss.
        of_lse: float32 [M], what flows into its log-sum-exp, or None.
    """
    of_items = torch.zeros(problem.items.shape, dtype=torch.float32, device=problem.items.device)
    if len(problem.hidden) == 0:
        return of_items
    arguments = _arguments(problem, loss, shift, of_loss, of_lse) | {"of_items": of_items}
    if is_by_row(problem):
        add = _rows_in_order if problem.deterministic else _rows
    else:
        add = _tiles_in_order if problem.deterministic else _tiles
    add(problem, arguments)
    return of_items


def backward_item_rows(
    problem: Problem, loss: Tensor, shift: Tensor, of_loss: Tensor, of_lse: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the same as rows, int64 [K] and float32 [K, D]: each group's negatives, then rows' targets.

    Each sum has one writer where a group fills a program, or with `deterministic`; else its parts are added
    by atomics.
    """
    rows = ItemRows.of(problem)
    if len(problem.hidden):
        arguments = _arguments(problem, loss, shift, of_loss, of_lse)
        ids, sums = rows.negatives()
        into = arguments | {"pair_ids": ids, "of_items": sums}
        _negatives(tiling_of(problem), into, one_part=problem.deterministic)
        _positives(problem, arguments | {"of_items": rows.positives(), "BY_ROW": True})
    return rows.ids, rows.values


def _arguments(
    problem: Problem, loss: Tensor, shift: Tensor, of_loss: Tensor, of_lse: Tensor | None
) -> Arguments:
    return arguments_of(problem) | {
        "loss": loss, "shift": shift, "of_loss": of_loss, "of_lse": of_lse,
        "pair_ids": None, "pair_slopes": None, "first_row": 0, "first_local": 0, "BY_ROW": False,
        "SPLIT": is_finer(problem.items, problem),
    }  # fmt: skip


def _rows(problem: Problem, arguments: Arguments) -> None:
    blocks = row_blocks(problem.hidden.shape[1])
    launch(rows_backward, (len(problem.hidden), blocks.chunks), blocks, arguments)


def _rows_in_order(problem: Problem, arguments: Arguments) -> None:
    blocks = row_blocks(problem.hidden.shape[1])
    width = problem.num_negatives + 1
    for some in slices(len(problem.hidden), rows_at_once(problem.chunk_bytes, width * PAIR_BYTES)):
        hidden = problem.hidden[some]
        ids = _empty_slots(problem, len(hidden) * width)
        slopes = torch.empty(len(ids), dtype=torch.float32, device=ids.device)
        own = {"pair_ids": ids, "pair_slopes": slopes, "first_row": some.start}
        launch(rows_backward, (len(hidden), 1), blocks, arguments | own)
        _add_in_order(problem, arguments, ids, slopes, hidden, width)


def _tiles(problem: Problem, arguments: Arguments) -> None:
    _negatives(tiling_of(problem), arguments)
    _positives(problem, arguments)


def _tiles_in_order(problem: Problem, arguments: Arguments) -> None:
    tiling = tiling_of(problem)
    if problem.num_negatives == 0:
        # Every item once: each sum has one writer, and needs no order.
        _negatives(tiling, arguments, one_part=True)
    else:
        _negatives_in_order(problem, tiling, arguments)
    _positives_in_order(problem, arguments)


def _negatives(tiling: Tiling, arguments: Arguments, one_part: bool = False) -> None:
    """Launches the kernel of groups and their negatives; with `one_part` each of its sums has one writer."""
    blocks = tiling.blocks
    programs = tiling.groups * -(-arguments["num_negatives"] // blocks.negatives)
    parts = 1 if one_part else min(tiling.lanes, max(1, _WANTED_PROGRAMS // programs))
    own = tiling.layout | {"PARTS": parts}
    launch(tiles_backward, (programs, blocks.chunks * parts), blocks, arguments | own)


def _negatives_in_order(problem: Problem, tiling: Tiling, arguments: Arguments) -> None:
    number, dim = problem.num_negatives, problem.hidden.shape[1]
    at_once = rows_at_once(problem.chunk_bytes, number * (PAIR_BYTES + 4 * dim))
    for some in slices(tiling.groups, at_once):
        groups = some.stop - some.start
        ids = _empty_slots(problem, groups * number)
        sums = torch.zeros(len(ids), dim, dtype=torch.float32, device=ids.device)
        own = {"pair_ids": ids, "of_items": sums, "first_local": some.start}
        _negatives(replace(tiling, groups=groups), arguments | own, one_part=True)
        _add_in_order(problem, arguments, ids, None, sums, 1)


def _positives(problem: Problem, arguments: Arguments) -> None:
    blocks = positive_blocks(problem.hidden.shape[1])
    launch(positives_backward, (-(-len(problem.hidden) // blocks.rows), blocks.chunks), blocks, arguments)


def _positives_in_order(problem: Problem, arguments: Arguments) -> None:
    blocks = positive_blocks(problem.hidden.shape[1])
    slopes = torch.empty_like(arguments["of_loss"])
    grid = (-(-len(problem.hidden) // blocks.rows), 1)
    launch(positives_backward, grid, blocks, arguments | {"pair_slopes": slopes})
    ids = torch.where(problem.has_target, problem.targets, len(problem.items)).to(torch.int32)
    _add_in_order(problem, arguments, ids, slopes, problem.hidden, 1)


def _empty_slots(problem: Problem, count: int) -> Tensor:
    """Returns ids int32 [count], all V, which is no item."""
    return torch.full((count,), len(problem.items), dtype=torch.int32, device=problem.items.device)


def _add_in_order(
    problem: Problem,
    arguments: Arguments,
    ids: Tensor,
    slopes: Tensor | None,
    source: Tensor,
    pairs_per_row: int,
) -> None:
    """Adds slopes[p] (or 1) times row p // pairs_per_row of `source` to the gradient of item ids[p]."""
    sorted_ids, order = ids.sort(stable=True)
    # Rows of hidden states are rounded as they were for their logits; sums are taken as they are.
    compute = DTYPES[torch.float32] if slopes is None else arguments["COMPUTE"]
    blocks = segment_blocks(source.shape[1])
    own = {
        "sorted_ids": sorted_ids, "order": order, "slopes": slopes, "source": source, "num_pairs": len(ids),
        "pairs_per_row": pairs_per_row, "source_row": source.stride(0), "source_step": source.stride(1),
        "COMPUTE": compute,
    }  # fmt: skip
    launch(add_segments, (-(-len(ids) // blocks.rows), blocks.chunks), blocks, arguments | own)
