"""The ids that a loss draws, to be logged and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import Form, Frame, Negatives, Stream, sampled_problem
from .candidates import all_negatives
from .looks import check_ids
from .popularity import Popularity
from .samplers import NO_ITEM
from .tensors import check_tensor
from .values import whole_number


def drawn_ids(
    targets: Tensor,
    num_items: int,
    *,
    num_negatives: int,
    sampler: str | Popularity = "uniform",
    sharing: str | int | Tensor = "row",
    sharing_stride: int = 1,
    in_batch: int = 0,
    seed: int = 0,
    step: int = 0,
    rng_state: Tensor | None = None,
    row_offset: int | Tensor = 0,
    ignore_index: int = -100,
) -> Tensor:
    """Returns the negatives that `sampled_cross_entropy` and the binary losses draw for the same arguments.

    A row without a target has ids, too, though no loss looks at them; hits are not marked: a loss leaves out
    where the id is the row's target. Workspace: 8 M N bytes, which the losses never hold.

    Args:
        targets: int [M]; their number and device say for which rows, their values what `in_batch` draws.
        num_items: V.
        num_negatives: N; this and the following as in `sampled_cross_entropy`.
        sampler: `uniform`, `block` or a `Popularity` of V items.
        sharing: `row`, T, boundaries or `batch`.
        sharing_stride: of tiles.
        in_batch: how many of the N are targets of rows of this call.
        seed: 64-bit key of the draws.
        step: in [0, 2^32).
        rng_state: int64 [2], in place of both.
        row_offset: global number of the first row, or int64 [M] of all.
        ignore_index: marks rows without a target, and what `negatives` of a loss leaves out.

    Returns:
        int64 [M, N] on the targets' device. Unused slots (behind the catalogue's end, or a row drawn by
        `in_batch` that has no target) hold `ignore_index` where that is negative, else -1; so a loss takes
        the ids as `negatives`.

    Raises:
        ValueError, TypeError, IndexError: as `sampled_cross_entropy`.
    """
    check_tensor("targets", targets)
    items = whole_number("num_items", num_items, 1)
    # Arguments to check and nothing to compute: a table of one number that looks like [V, 1].
    hidden = torch.zeros(len(targets), 1, device=targets.device)
    table = hidden.new_zeros(1, 1).expand(items, 1)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, None, stream, sampler, sharing, sharing_stride, in_batch)
    frame = Frame(ignore_index=ignore_index, kernel="torch")
    problem = sampled_problem(hidden, table, targets, drawn, Form(), frame)
    check_ids(problem)
    ids = all_negatives(problem)
    unused = problem.ignore_index if problem.ignore_index < 0 else NO_ITEM
    return ids.masked_fill_((ids < 0) | (ids >= items), unused)
