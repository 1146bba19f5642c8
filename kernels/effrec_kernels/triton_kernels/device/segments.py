"""Sums by item in a fixed order: no atomics, so the same bits come out each time."""

import triton
import triton.language as tl

from .arithmetic import read_row
from .signature import UNSPECIALIZED


@triton.jit(do_not_specialize=UNSPECIALIZED)
def add_segments(
    sorted_ids, order, slopes, source, of_items,
    num_pairs, num_items, dim, pairs_per_row, source_row, source_step,
    COMPUTE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Adds to row i of `of_items` [V, D] the pairs of item i, one after the other as they are sorted.

    Pair p of the unsorted ones adds slopes[p] (or 1) times row p // pairs_per_row of `source`. Ids of V or
    more are no items. A program sums the runs of equal ids that begin in its BLOCK_M of pairs. Grid: (blocks
    of pairs, chunks of D).
    """
    places = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    matrix = (source, dim, source_row, source_step)
    begin = tl.program_id(0).to(tl.int64) * BLOCK_M
    for start in range(begin, tl.minimum(begin + BLOCK_M, num_pairs)):
        item = tl.load(sorted_ids + start)
        before = tl.load(sorted_ids + start - 1, mask=start > 0, other=-1)
        if (item != before) & (item < num_items):
            into = of_items + item.to(tl.int64) * dim + places
            total = tl.load(into, mask=places < dim, other=0.0)
            at = start
            while tl.load(sorted_ids + at, mask=at < num_pairs, other=-1) == item:
                pair = tl.load(order + at)
                slope = 1.0 if slopes is None else tl.load(slopes + pair)
                total += slope * read_row(matrix, pair // pairs_per_row, places, COMPUTE)
                at += 1
            tl.store(into, total, mask=places < dim)
