"""Groups of rows that share their negatives: one gather for many rows, and matrix products on tensor cores.

The full softmax is the case in which every item is a negative of one group of all rows. OPERAND is COMPUTE,
or float32 in Triton's interpreter, which cannot multiply bfloat16; rounding to COMPUTE comes first.
"""

import triton
import triton.language as tl

from .arithmetic import finite, one_minus_exp, read_rows, softmax_loss, softplus
from .candidates import block_of_ids
from .positives import positive_logits
from .signature import UNSPECIALIZED

# Slopes lie in [0, 1]; times this, those too small for a float16's exponent are few.
SLOPE_UNIT = tl.constexpr(1024.0)


@triton.jit
def rows_of_group(
    group, boundaries, row_start, num_rows, first_group, tile, stride, LAYOUT: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Returns a local group's key, its first local row, the distance of its rows and their number.

    `tiles`: group number n has the rows n // S * T S + n % S + t S for t < T, T = tile, S = stride; those
    outside the call's rows are left out. `spans`: rows boundaries[g] .. boundaries[g + 1]. `batch`: all.
    """
    # 64-bit, and so is what is added to its zero.
    number = first_group + group
    if LAYOUT == "batch":
        return first_group, number * 0, number * 0 + 1, number * 0 + num_rows
    elif LAYOUT == "spans":
        begin = tl.load(boundaries + group).to(tl.int64)
        return row_start + begin, begin, number * 0 + 1, tl.load(boundaries + group + 1).to(tl.int64) - begin
    else:
        tl.static_assert(LAYOUT == "tiles")
        # `first_group` is a multiple of S: exact where it is negative, too, and `//` would round towards 0.
        stretch, place = first_group // stride + group // stride, group % stride
        first = stretch * tile * stride + place - row_start  # in 64 bits: `tile * stride` may not fit 32
        before = tl.maximum(0, (stride - 1 - first) // stride)
        first += before * stride
        count = tl.minimum(tile - before, (num_rows - first + stride - 1) // stride)
        return number, first, number * 0 + stride, tl.maximum(0, count)


@triton.jit
def _products(
    left, left_at, left_valid, left_read, right, right_at, right_valid, right_read,
    COMPUTE: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns float32 [ROWS, COLUMNS]: products of rows of one matrix with rows of another.

    A chunk of each has been read: `left_read` [ROWS, BLOCK_D] and `right_read` [COLUMNS, BLOCK_D].
    """
    if CHUNKS == 1:
        one, two = left_read.to(OPERAND), right_read.to(OPERAND)
        return tl.dot(one, tl.trans(two), input_precision=PRECISION)
    else:
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for chunk in range(CHUNKS):
            places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
            one = read_rows(left, left_at, left_valid, places, COMPUTE).to(OPERAND)
            two = read_rows(right, right_at, right_valid, places, COMPUTE).to(OPERAND)
            total = tl.dot(one, tl.trans(two), total, input_precision=PRECISION)
        return total


@triton.jit
def _mix(
    weights,
    rows,
    total,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
) -> tl.tensor:
    """Returns `total` plus weights [A, B] times rows [B, D].

    With 16-bit rows the weights are rounded to 16 bits; SPLIT multiplies what was rounded off as well, so
    that a float32 gradient gets the digits it can hold.
    """
    rounded = weights.to(COMPUTE)
    rows = rows.to(OPERAND)
    total = tl.dot(rounded.to(OPERAND), rows, total, input_precision=PRECISION)
    if SPLIT:
        rest = (weights - rounded.to(tl.float32)).to(COMPUTE).to(OPERAND)
        total = tl.dot(rest, rows, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=UNSPECIALIZED)
def tiles_forward(
    hidden, items, targets, boundaries, negatives, state, log_q, thresholds, alias, loss, lse, shift, unit,
    row_start, num_rows, first_group, tile, stride, lanes, num_negatives, num_items, in_batch,
    dim, ignore_index, scale, constant, log_others, beta,
    hidden_row, hidden_step, items_row, items_step, negatives_row, negatives_step,
    LAYOUT: tl.constexpr, SAMPLER: tl.constexpr, EXACT: tl.constexpr, BINARY: tl.constexpr,
    RUN: tl.constexpr, TWO_WORDS: tl.constexpr,
    COMPUTE: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """Writes loss, log-sum-exp, `shift` and, where given, `unit` of a group's rows, as `rows_forward` does.

    Grid: (groups * lanes, CHUNKS); the lanes of a group take its blocks of rows in turn, each for its own
    chunk of D values.
    """
    group, chunk = (tl.program_id(0) // lanes).to(tl.int64), tl.program_id(1)
    key, begin, step, size = rows_of_group(
        group, boundaries, row_start, num_rows, first_group, tile, stride, LAYOUT
    )
    states, table = (hidden, dim, hidden_row, hidden_step), (items, dim, items_row, items_step)
    source = (
        num_negatives, num_items, state, thresholds, alias, negatives, negatives_row, negatives_step,
        targets, num_rows, ignore_index, in_batch,
    )  # fmt: skip
    places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    for top in range(tl.program_id(0) % lanes * BLOCK_M, size, lanes * BLOCK_M):
        inside = top + tl.arange(0, BLOCK_M) < size
        at = begin + (top + tl.arange(0, BLOCK_M)).to(tl.int64) * step
        target = tl.load(targets + at, mask=inside, other=ignore_index).to(tl.int32)
        live = target != ignore_index
        # Before the loop, whose running sums fill the registers.
        positive = positive_logits(states, table, at, target, live, scale, COMPUTE, BLOCK_M, BLOCK_D, CHUNKS)
        k = constant
        if EXACT:
            used = _count_usable(
                source, key, group, target, num_negatives, SAMPLER, RUN, TWO_WORDS, BLOCK_M, BLOCK_N
            )
            k = log_others - tl.log(tl.maximum(used, 1).to(tl.float32))
        own = read_rows(states, at, live, places, COMPUTE)
        peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        for first in range(0, num_negatives, BLOCK_N):
            ids, exists = block_of_ids(source, key, group, first, SAMPLER, RUN, TWO_WORDS, BLOCK_N)
            mine = read_rows(table, ids, exists, places, COMPUTE)
            logits = scale * _products(
                states, at, live, own, table, ids, exists, mine,
                COMPUTE, OPERAND, PRECISION, BLOCK_M, BLOCK_N, BLOCK_D, CHUNKS,
            )  # fmt: skip
            if log_q is not None:
                logits -= tl.load(log_q + ids)[None, :]
            usable = exists[None, :] & (ids[None, :] != target[:, None])
            logits = tl.where(usable, logits, float("-inf"))
            if BINARY:
                total += tl.sum(tl.where(usable, softplus(logits), 0.0), 1)
                weights = tl.where(usable, tl.sigmoid(logits), 0.0)
            else:
                highest = tl.maximum(peak, tl.max(logits, 1))
                rescale = tl.exp(peak - finite(highest))
                weights = tl.exp(logits - finite(highest)[:, None])
                total = total * rescale + tl.sum(weights, 1)
                mixed *= rescale[:, None]
                peak = highest
            if unit is not None:
                mixed = _mix(weights, mine, mixed, COMPUTE, OPERAND, PRECISION, SPLIT)
        if BINARY:
            row_loss, of_positive = total + beta * softplus(-positive), -beta * tl.sigmoid(-positive)
            row_lse, row_shift = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
        else:
            row_loss, factor = softmax_loss(positive, peak, total, k)
            row_lse, row_shift = row_loss + positive, row_loss + positive - k
            of_positive = -one_minus_exp(row_loss)
            mixed *= factor[:, None]
        if chunk == 0:
            tl.store(loss + at, tl.where(live, row_loss, 0.0), mask=inside)
            tl.store(lse + at, tl.where(live, row_lse, 0.0), mask=inside)
            tl.store(shift + at, tl.where(live, row_shift, 0.0), mask=inside)
        if unit is not None:
            mixed += of_positive[:, None] * read_rows(table, target, live, places, COMPUTE).to(tl.float32)
            into = unit + at[:, None] * dim + places[None, :]
            mask = inside[:, None] & (places < dim)[None, :]
            tl.store(into, tl.where(live[:, None], mixed * scale, 0.0), mask=mask)


@triton.jit
def _count_usable(
    source, key, group, target, num_negatives,
    SAMPLER: tl.constexpr, RUN: tl.constexpr, TWO_WORDS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns int32 [BLOCK_M]: how many of its group's negatives each row can use. No item is read."""
    used = tl.zeros([BLOCK_M], tl.int32)
    for first in range(0, num_negatives, BLOCK_N):
        ids, exists = block_of_ids(source, key, group, first, SAMPLER, RUN, TWO_WORDS, BLOCK_N)
        used += tl.sum((exists[None, :] & (ids[None, :] != target[:, None])).to(tl.int32), 1)
    return used


@triton.jit(do_not_specialize=UNSPECIALIZED)
def tiles_backward(
    hidden, items, targets, boundaries, negatives, state, log_q, thresholds, alias, shift, of_loss, of_lse,
    of_items, pair_ids, first_local,
    row_start, num_rows, first_group, tile, stride, num_negatives, num_items, in_batch,
    dim, ignore_index, scale,
    hidden_row, hidden_step, items_row, items_step, negatives_row, negatives_step,
    LAYOUT: tl.constexpr, SAMPLER: tl.constexpr, BINARY: tl.constexpr,
    RUN: tl.constexpr, TWO_WORDS: tl.constexpr,
    COMPUTE: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:  # fmt: skip
    """Adds to `of_items` float32 [V, D], atomically, what a group's rows give a block of its negatives.

    Grid: (groups * blocks of negatives, CHUNKS * PARTS), a group's blocks next to each other so that they
    find its rows in the caches; the parts of a group take its blocks of rows in turn.
    Where `pair_ids` [groups, N] is given, ids are written there (nothing where there is none) and sums [D] to
    `of_items` [groups * N, D], which several parts of a group add to.
    """
    columns = (num_negatives + BLOCK_N - 1) // BLOCK_N
    local, first = (tl.program_id(0) // columns).to(tl.int64), tl.program_id(0) % columns * BLOCK_N
    group, chunk = first_local + local, tl.program_id(1) // PARTS
    key, begin, step, size = rows_of_group(
        group, boundaries, row_start, num_rows, first_group, tile, stride, LAYOUT
    )
    part = tl.program_id(1) % PARTS
    if part * BLOCK_M >= size:
        return
    states, table = (hidden, dim, hidden_row, hidden_step), (items, dim, items_row, items_step)
    source = (
        num_negatives, num_items, state, thresholds, alias, negatives, negatives_row, negatives_step,
        targets, num_rows, ignore_index, in_batch,
    )  # fmt: skip
    places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    ids, exists = block_of_ids(source, key, group, first, SAMPLER, RUN, TWO_WORDS, BLOCK_N)
    mine = read_rows(table, ids, exists, places, COMPUTE)
    correction = tl.zeros([BLOCK_N], tl.float32) if log_q is None else tl.load(log_q + ids)
    mixed = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for top in range(part * BLOCK_M, size, PARTS * BLOCK_M):
        inside = top + tl.arange(0, BLOCK_M) < size
        at = begin + (top + tl.arange(0, BLOCK_M)).to(tl.int64) * step
        target = tl.load(targets + at, mask=inside, other=ignore_index).to(tl.int32)
        live = target != ignore_index
        own = read_rows(states, at, live, places, COMPUTE)
        logits = scale * _products(
            table, ids, exists, mine, states, at, live, own,
            COMPUTE, OPERAND, PRECISION, BLOCK_N, BLOCK_M, BLOCK_D, CHUNKS,
        )  # fmt: skip
        logits -= correction[:, None]
        row_shift = tl.load(shift + at, mask=live, other=0.0)
        upstream = tl.load(of_loss + at, mask=live, other=0.0)
        if of_lse is not None:
            upstream += tl.load(of_lse + at, mask=live, other=0.0)
        usable = exists[:, None] & live[None, :] & (ids[:, None] != target[None, :])
        slopes = tl.sigmoid(logits) if BINARY else tl.exp(logits - row_shift[None, :])
        # Rows' factors may be too small for 16 bits; divided by the largest they are not.
        largest = tl.max(tl.abs(upstream))
        share = upstream / tl.where(largest > 0, largest, 1.0)
        slopes = tl.where(usable, slopes * share[None, :], 0.0) * SLOPE_UNIT
        product = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        product = _mix(slopes, own, product, COMPUTE, OPERAND, PRECISION, SPLIT)
        mixed += product * (largest * scale / SLOPE_UNIT)
    mask = exists[:, None] & (places < dim)[None, :]
    if pair_ids is None:
        into = of_items + ids.to(tl.int64)[:, None] * dim + places[None, :]
        tl.atomic_add(into, mixed, mask=mask, sem="relaxed")
    else:
        slot = local * num_negatives + first + tl.arange(0, BLOCK_N)
        tl.store(pair_ids + slot, ids, mask=exists)
        into = of_items + slot[:, None] * dim + places[None, :]
        if PARTS == 1:
            tl.store(into, mixed, mask=mask)
        else:
            tl.atomic_add(into, mixed, mask=mask, sem="relaxed")
