"""Packed tables on the device: rows to dense ones, a dense gradient at slots, users against items."""

import triton
import triton.language as tl

from .signature import UNSPECIALIZED


@triton.jit
def slots_of(offsets, row, valid, width) -> tuple[tl.tensor, tl.tensor]:
    """Returns the first slot of rows and how many they have, 0 where not `valid`; rows are 64-bit."""
    if offsets is None:
        return row * width, tl.where(valid, width, 0)
    else:
        begin = tl.load(offsets + row, mask=valid, other=0)
        return begin, tl.load(offsets + row + 1, mask=valid, other=0) - begin


@triton.jit
def most(offsets, count, width) -> tl.tensor:
    """Returns the largest of rows' counts, which are all `width` where no offsets are."""
    if offsets is None:
        return width
    else:
        return tl.max(count, 0)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def unpack_rows(
    rows, offsets, columns, values, factors, dense, num_rows, num_items, dim, width,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes slots of row rows[i] to row i of `dense` [n, d], which holds zeros, for all i < num_rows.

    What is no row becomes NaN. Grid: (blocks of rows).
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.load(rows + at, mask=at < num_rows, other=0)
    known = (row >= 0) & (row < num_items)
    begin, count = slots_of(offsets, row, known & (at < num_rows), width)
    for start in range(0, most(offsets, count, width), BLOCK_D):
        places = start + tl.arange(0, BLOCK_D)
        mask = places[None, :] < count[:, None]
        slot = begin[:, None] + places[None, :]
        column = tl.load(columns + slot, mask=mask, other=0).to(tl.int64)
        value = tl.load(values + slot, mask=mask, other=0)
        if factors is not None:
            value = value.to(tl.float32) * tl.load(factors + row, mask=known, other=0)[:, None]
        tl.store(dense + at[:, None] * dim + column, value, mask=mask)
    unknown = (at < num_rows) & ~known
    if tl.max(unknown.to(tl.int32), 0) > 0:
        for start in range(0, dim, BLOCK_D):
            places = start + tl.arange(0, BLOCK_D)
            mask = unknown[:, None] & (places < dim)[None, :]
            tl.store(dense + at[:, None] * dim + places[None, :], float("nan"), mask=mask)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def gather_slots(
    rows, offsets, columns, upstream, starts, found, slots, num_rows, num_items, width, upstream_row,
    upstream_step, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes what row i of `upstream` [n, d] is at the slots of row rows[i], for all i < num_rows.

    They go to found[i, :], or ragged to `found` [S] from starts[i] on, with their numbers in `slots`. Grid:
    (blocks of rows).
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.load(rows + at, mask=at < num_rows, other=0)
    valid = (at < num_rows) & (row >= 0) & (row < num_items)
    begin, count = slots_of(offsets, row, valid, width)
    into = at * width if starts is None else tl.load(starts + at, mask=valid, other=0)
    for start in range(0, most(offsets, count, width), BLOCK_D):
        places = start + tl.arange(0, BLOCK_D)
        mask = places[None, :] < count[:, None]
        slot = begin[:, None] + places[None, :]
        column = tl.load(columns + slot, mask=mask, other=0).to(tl.int64)
        value = tl.load(upstream + at[:, None] * upstream_row + column * upstream_step, mask=mask, other=0)
        tl.store(found + into[:, None] + places[None, :], value, mask=mask)
        if slots is not None:
            tl.store(slots + into[:, None] + places[None, :], slot, mask=mask)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def score_items(
    users, offsets, columns, values, factors, scores, num_rows, num_items, first_row, width, users_row,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
) -> None:  # fmt: skip
    """Writes products of users with packed rows first_row + i, i < num_items, to scores[:, i].

    `users` is float32 [d, b], a column each: a slot takes a row of it, from the caches. Grid: (blocks of
    items, blocks of users).
    """
    item = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    user = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = first_row + item
    begin, count = slots_of(offsets, row, item < num_items, width)
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for place in range(0, most(offsets, count, width)):
        has = place < count
        column = tl.load(columns + begin + place, mask=has, other=0).to(tl.int64)
        value = tl.load(values + begin + place, mask=has, other=0).to(tl.float32)
        of_users = users + column[:, None] * users_row + user[None, :]
        total += value[:, None] * tl.load(of_users, mask=has[:, None] & (user < num_rows)[None, :], other=0)
    if factors is not None:
        total *= tl.load(factors + row, mask=item < num_items, other=0)[:, None]
    into = scores + user[None, :] * num_items + item[:, None]
    tl.store(into, total, mask=(item < num_items)[:, None] & (user < num_rows)[None, :])
