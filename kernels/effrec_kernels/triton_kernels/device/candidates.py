"""A block of negatives of one key, a row or a group of rows: their ids, and which can be used."""

import triton
import triton.language as tl

from .draw import one_word_ids, popular_ids, run_ids, uniform_ids

# Flips the key's highest bit where rows of the batch are drawn and not items.
IN_BATCH_FLAG = tl.constexpr(0x80000000)


@triton.jit
def block_of_ids(
    source, key, given_row, first,
    SAMPLER: tl.constexpr, RUN: tl.constexpr, TWO_WORDS: tl.constexpr, COUNT: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Returns int32 ids [COUNT] from position `first`, a multiple of 4, and which are items.

    Args:
        source: N, V, the generator's state, alias table or None twice, given ids (pointer, distances of rows
            and of ids; or None), and the batch's targets with their number, what marks rows without one and
            how many to draw (or None).
        key: number of the row or group that draws.
        given_row: row of the given ids.
        first: position among the N.
        SAMPLER: `given`, `all` (each item once), `uniform`, `popularity` or `block`.
        RUN: ids in a run of the block sampler.
        TWO_WORDS: whether a uniform or block draw takes two random words and not one.
        COUNT: how many ids, a power of two and at least 4.
    """
    (
        count, num_items, state, thresholds, alias, given, given_stride, given_step,
        targets, rows, ignore_index, in_batch,
    ) = source  # fmt: skip
    place = first + tl.arange(0, COUNT)
    inside = place < count
    if SAMPLER == "given":
        at = given + given_row * given_stride + place.to(tl.int64) * given_step
        ids = tl.load(at, mask=inside, other=-1)
    elif SAMPLER == "all":
        ids = place
    elif SAMPLER == "uniform":
        ids = uniform_ids(state, key, first, num_items, TWO_WORDS, COUNT)
    elif SAMPLER == "popularity":
        ids = popular_ids(state, key, first, num_items, thresholds, alias, COUNT)
    else:
        tl.static_assert(SAMPLER == "block")
        ids = run_ids(state, key, first, (num_items + RUN - 1) // RUN, TWO_WORDS, RUN, COUNT)
    if in_batch is not None:
        drawn = one_word_ids(state, key, first, rows, COUNT, IN_BATCH_FLAG)
        theirs = tl.load(targets + drawn, mask=place < in_batch, other=-1)
        # The mark may be a number that an item has.
        ids = tl.where(place < in_batch, tl.where(theirs == ignore_index, -1, theirs), ids)
    usable = inside & (ids >= 0) & (ids < num_items)
    return tl.where(usable, ids, 0).to(tl.int32), usable
