"""Rows and their own targets: what a row's loss gives the target's item, and all candidates give the row."""

import triton
import triton.language as tl

from .arithmetic import one_minus_exp, read_rows
from .signature import UNSPECIALIZED


@triton.jit
def positive_logits(
    states, table, at, target, live, scale,
    COMPUTE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns float32 [BLOCK_M]: scaled products of rows with their targets."""
    total = tl.zeros([BLOCK_M], tl.float32)
    for chunk in range(CHUNKS):
        places = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        item = read_rows(table, target, live, places, COMPUTE).to(tl.float32)
        total += tl.sum(read_rows(states, at, live, places, COMPUTE).to(tl.float32) * item, 1)
    return total * scale


@triton.jit(do_not_specialize=UNSPECIALIZED)
def positives_backward(
    hidden, items, targets, loss, of_loss, of_lse, of_items, pair_slopes,
    num_rows, dim, ignore_index, scale, beta, hidden_row, hidden_step, items_row, items_step,
    BINARY: tl.constexpr, BY_ROW: tl.constexpr, COMPUTE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """Adds to `of_items`, atomically, what rows give their own targets. Grid: (blocks of rows, CHUNKS).

    Where `pair_slopes` [M] is given, the factors of rows are written there instead; with BY_ROW, what row i
    gives to row i of `of_items` [M, D].
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    places = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    states, table = (hidden, dim, hidden_row, hidden_step), (items, dim, items_row, items_step)
    target = tl.load(targets + at, mask=at < num_rows, other=ignore_index).to(tl.int64)
    live = target != ignore_index
    upstream = tl.load(of_loss + at, mask=live, other=0.0)
    if BINARY:
        positive = positive_logits(states, table, at, target, live, scale, COMPUTE, BLOCK_M, BLOCK_D, CHUNKS)
        slope = -beta * tl.sigmoid(-positive) * upstream
    else:
        others = one_minus_exp(tl.load(loss + at, mask=live, other=0.0))
        slope = -upstream * others
        if of_lse is not None:
            slope += tl.load(of_lse + at, mask=live, other=0.0) * (1 - others)
    if BY_ROW:
        own = read_rows(states, at, live, places, COMPUTE).to(tl.float32)
        into = of_items + at[:, None] * dim + places[None, :]
        mask = (at < num_rows)[:, None] & (places < dim)[None, :]
        tl.store(into, own * (slope * scale)[:, None], mask=mask)
    elif pair_slopes is None:
        own = read_rows(states, at, live, places, COMPUTE).to(tl.float32)
        into = of_items + target[:, None] * dim + places[None, :]
        mask = live[:, None] & (places < dim)[None, :]
        tl.atomic_add(into, own * (slope * scale)[:, None], mask=mask, sem="relaxed")
    else:
        tl.store(pair_slopes + at, slope * scale, mask=at < num_rows)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def hidden_backward(
    items, targets, unit, of_loss, of_lse, of_hidden,
    num_rows, dim, ignore_index, scale, items_row, items_step,
    COMPUTE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes `of_hidden` [M, D]: unit gradients times what flows into rows. Grid: (blocks of rows, CHUNKS).

    The log-sum-exp is the loss plus the target's logit, whose gradient by the row is the target's item.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    places = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    target = tl.load(targets + at, mask=at < num_rows, other=ignore_index).to(tl.int64)
    live = target != ignore_index
    factor = tl.load(of_loss + at, mask=live, other=0.0)
    gradient = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if of_lse is not None:
        upstream = tl.load(of_lse + at, mask=live, other=0.0)
        table = (items, dim, items_row, items_step)
        gradient += (upstream * scale)[:, None] * read_rows(table, target, live, places, COMPUTE).to(
            tl.float32
        )
        factor += upstream
    offsets = at[:, None] * dim + places[None, :]
    mask = (at < num_rows)[:, None] & (places < dim)[None, :]
    gradient += factor[:, None] * tl.load(unit + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(of_hidden + offsets, gradient, mask=mask)
