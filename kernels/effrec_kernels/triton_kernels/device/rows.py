"""Each row against negatives of its own: one program a row, candidates gathered, arithmetic in float32.

Reading D values for every candidate bounds the work, so each pass reads a candidate's row once: forward
mixes the rows that it scores (as attention does) into the gradient by the hidden state.
"""

import triton
import triton.language as tl

from .arithmetic import finite, one_minus_exp, read_row, read_rows, softmax_loss, softplus
from .candidates import block_of_ids
from .signature import UNSPECIALIZED


@triton.jit
def _logits(
    states, table, row, ids, usable, mine, own, scale,
    COMPUTE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns [BLOCK_N]: scaled products of a row with candidates.

    A chunk of both has been read: `own` [BLOCK_D] and `mine` [BLOCK_N, BLOCK_D].
    """
    if CHUNKS == 1:
        return tl.sum(mine * own[None, :], 1) * scale
    else:
        products = tl.zeros([BLOCK_N], tl.float32)
        for chunk in range(CHUNKS):
            places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
            read = read_rows(table, ids, usable, places, COMPUTE).to(tl.float32)
            products += tl.sum(read * read_row(states, row, places, COMPUTE)[None, :], 1)
        return products * scale


@triton.jit
def _positive_logit(
    states, table, row, target, scale, COMPUTE: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
) -> tl.tensor:
    """Returns the scaled product of a row with its target."""
    total = 0.0
    for chunk in range(CHUNKS):
        places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        total += tl.sum(read_row(states, row, places, COMPUTE) * read_row(table, target, places, COMPUTE))
    return total * scale


@triton.jit(do_not_specialize=UNSPECIALIZED)
def rows_forward(
    hidden, items, targets, rows, negatives, state, log_q, thresholds, alias, loss, lse, shift, unit,
    row_start, num_rows, num_negatives, num_items, in_batch,
    dim, ignore_index, scale, constant, log_others, beta,
    hidden_row, hidden_step, items_row, items_step, negatives_row, negatives_step,
    SAMPLER: tl.constexpr, EXACT: tl.constexpr, BINARY: tl.constexpr, RUN: tl.constexpr,
    TWO_WORDS: tl.constexpr, COMPUTE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """Writes a row's loss, log-sum-exp, `shift` (log-sum-exp less k) and, where given, `unit` [M, D].

    `unit` is the gradient of the row's loss by its hidden state. Grid: (M, CHUNKS); a program mixes its own
    chunk of D values and scores all of them.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    target = tl.load(targets + row).to(tl.int32)
    if target == ignore_index:
        _write(
            loss, lse, shift, unit, row, chunk, places, dim, 0.0, 0.0, 0.0, tl.zeros([BLOCK_D], tl.float32)
        )
        return
    states, table = (hidden, dim, hidden_row, hidden_step), (items, dim, items_row, items_step)
    source = (
        num_negatives, num_items, state, thresholds, alias, negatives, negatives_row, negatives_step,
        targets, num_rows, ignore_index, in_batch,
    )  # fmt: skip
    key = row_start + row if rows is None else tl.load(rows + row)
    positive = _positive_logit(states, table, row, target, scale, COMPUTE, BLOCK_D, CHUNKS)
    own = read_row(states, row, places, COMPUTE)
    # A running maximum and sum for each slot of the block: nothing crosses threads until the end.
    peak, total = tl.full([BLOCK_N], float("-inf"), tl.float32), tl.zeros([BLOCK_N], tl.float32)
    used = tl.zeros([BLOCK_N], tl.int32)
    mixed = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(0, num_negatives, BLOCK_N):
        ids, usable = block_of_ids(source, key, row, first, SAMPLER, RUN, TWO_WORDS, BLOCK_N)
        usable &= ids != target
        mine = read_rows(table, ids, usable, places, COMPUTE).to(tl.float32)
        logits = _logits(states, table, row, ids, usable, mine, own, scale, COMPUTE, BLOCK_N, BLOCK_D, CHUNKS)
        if log_q is not None:
            logits -= tl.load(log_q + ids)
        logits = tl.where(usable, logits, float("-inf"))
        if BINARY:
            total += tl.where(usable, softplus(logits), 0.0)
            weights = tl.where(usable, tl.sigmoid(logits), 0.0)
        else:
            highest = tl.maximum(peak, logits)
            rescale, weights = tl.exp(peak - finite(highest)), tl.exp(logits - finite(highest))
            total = total * rescale + weights
            mixed *= rescale[:, None]
            peak = highest
        if EXACT:
            used += usable.to(tl.int32)
        if unit is not None:
            mixed += weights[:, None] * mine
    if BINARY:
        row_loss, row_lse, row_shift = tl.sum(total) + beta * softplus(-positive), 0.0, 0.0
        of_positive = -beta * tl.sigmoid(-positive)
        gradient = tl.sum(mixed, 0)
    else:
        highest = tl.max(peak)
        weights = tl.exp(peak - finite(highest))
        k = log_others - tl.log(tl.maximum(tl.sum(used), 1).to(tl.float32)) if EXACT else constant
        row_loss, factor = softmax_loss(positive, highest, tl.sum(total * weights), k)
        row_lse, row_shift = row_loss + positive, row_loss + positive - k
        of_positive = -one_minus_exp(row_loss)
        gradient = tl.sum(mixed * (weights * factor)[:, None], 0)
    if unit is not None:
        gradient += of_positive * read_row(table, target, places, COMPUTE)
    _write(loss, lse, shift, unit, row, chunk, places, dim, row_loss, row_lse, row_shift, gradient * scale)


@triton.jit
def _write(loss, lse, shift, unit, row, chunk, places, dim, row_loss, row_lse, row_shift, gradient) -> None:
    """Writes what `rows_forward` knows of a row: the chunk's part of the gradient, the rest once."""
    if chunk == 0:
        tl.store(loss + row, row_loss)
        tl.store(lse + row, row_lse)
        tl.store(shift + row, row_shift)
    if unit is not None:
        tl.store(unit + row * dim + places, gradient, mask=places < dim)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def rows_backward(
    hidden, items, targets, rows, negatives, state, log_q, thresholds, alias,
    shift, of_loss, of_lse, of_items, pair_ids, pair_slopes, first_row,
    row_start, num_rows, num_negatives, num_items, in_batch, dim, ignore_index, scale, beta,
    hidden_row, hidden_step, items_row, items_step, negatives_row, negatives_step,
    SAMPLER: tl.constexpr, BINARY: tl.constexpr, RUN: tl.constexpr,
    TWO_WORDS: tl.constexpr, COMPUTE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """Adds to `of_items` float32 [V, D], atomically, what a row's loss and log-sum-exp give its candidates.

    Candidates are drawn and scored again. Grid: (rows, CHUNKS); a program adds its own chunk of D values.
    Where `pair_ids` [rows, N + 1] is given, ids (V where there is none) and slopes are written there instead,
    the target's last, to be added in a fixed order.
    """
    row, chunk = first_row + tl.program_id(0).to(tl.int64), tl.program_id(1)
    pairs = tl.program_id(0).to(tl.int64) * (num_negatives + 1)
    target = tl.load(targets + row).to(tl.int32)
    if target == ignore_index:
        return
    places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    states, table = (hidden, dim, hidden_row, hidden_step), (items, dim, items_row, items_step)
    source = (
        num_negatives, num_items, state, thresholds, alias, negatives, negatives_row, negatives_step,
        targets, num_rows, ignore_index, in_batch,
    )  # fmt: skip
    key = row_start + row if rows is None else tl.load(rows + row)
    row_shift, upstream = tl.load(shift + row), tl.load(of_loss + row)
    upstream_lse = 0.0 if of_lse is None else tl.load(of_lse + row)
    own = read_row(states, row, places, COMPUTE)
    others = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, num_negatives, BLOCK_N):
        ids, usable = block_of_ids(source, key, row, first, SAMPLER, RUN, TWO_WORDS, BLOCK_N)
        usable &= ids != target
        mine = read_rows(table, ids, usable, places, COMPUTE).to(tl.float32)
        logits = _logits(states, table, row, ids, usable, mine, own, scale, COMPUTE, BLOCK_N, BLOCK_D, CHUNKS)
        if log_q is not None:
            logits -= tl.load(log_q + ids)
        slopes = tl.sigmoid(logits) if BINARY else tl.exp(logits - row_shift)
        slopes = tl.where(usable, slopes, 0.0)
        others += slopes
        slopes *= (upstream + upstream_lse) * scale
        if pair_ids is None:
            at = of_items + ids.to(tl.int64)[:, None] * dim + places[None, :]
            mask = usable[:, None] & (places < dim)[None, :]
            tl.atomic_add(at, slopes[:, None] * own[None, :], mask=mask, sem="relaxed")
        else:
            at = pairs + first + tl.arange(0, BLOCK_N)
            tl.store(pair_ids + at, ids, mask=usable)
            tl.store(pair_slopes + at, slopes, mask=usable)
    if BINARY:
        positive = _positive_logit(states, table, row, target, scale, COMPUTE, BLOCK_D, CHUNKS)
        slope = -beta * tl.sigmoid(-positive) * upstream
    else:
        # The positive's probability is what the others leave.
        slope = upstream_lse - (upstream + upstream_lse) * tl.sum(others)
    if pair_ids is None:
        at = of_items + target.to(tl.int64) * dim + places
        tl.atomic_add(at, slope * scale * own, mask=places < dim, sem="relaxed")
    else:
        tl.store(pair_ids + pairs + num_negatives, target)
        tl.store(pair_slopes + pairs + num_negatives, slope * scale)
