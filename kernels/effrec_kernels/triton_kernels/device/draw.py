"""Ids drawn inside a kernel: the counter layout of `effrec_kernels.rng`, one program's few ids at a time.

Keys are row numbers, or group numbers where rows share negatives. All functions run on the device.
"""

import triton
import triton.language as tl


@triton.jit
def _four_words(
    state, key, block, FLAG: tl.constexpr = 0
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Returns the four 32-bit words of each Philox block.

    `state` holds int64 (seed, step); `key` is any integer; FLAG flips bits of the key's high word.
    """
    seed, step = tl.load(state), tl.load(state + 1)
    zero, key = block * 0, tl.cast(key, tl.int64)
    low = zero + (key & 0xFFFFFFFF).to(tl.uint32)
    high = zero + (((key >> 32) & 0xFFFFFFFF) ^ FLAG).to(tl.uint32)
    return tl.philox(seed, block, low, high, zero + step.to(tl.uint32))


@triton.jit
def one_word_ids(state, key, first, num_ids, COUNT: tl.constexpr, FLAG: tl.constexpr = 0) -> tl.tensor:
    """Returns int64 [COUNT]: numbers first .. first + COUNT - 1 of `key`, below `num_ids`, 4 to a block."""
    block = (first // 4 + tl.arange(0, COUNT // 4)).to(tl.uint32)
    w0, w1, w2, w3 = _four_words(state, key, block, FLAG)
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [COUNT])
    return tl.umulhi(words, tl.full([COUNT], 0, tl.uint32) + tl.cast(num_ids, tl.uint32)).to(tl.int64)


@triton.jit
def _word_pairs(state, key, first, COUNT: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Returns first and second words of ids first .. first + COUNT - 1: uint64 [COUNT] each, 2 to a block."""
    block = (first // 2 + tl.arange(0, COUNT // 2)).to(tl.uint32)
    w0, w1, w2, w3 = _four_words(state, key, block)
    one = tl.reshape(tl.join(w0, w2), [COUNT])
    two = tl.reshape(tl.join(w1, w3), [COUNT])
    return one.to(tl.uint64), two.to(tl.uint64)


@triton.jit
def _below(high, low, bound) -> tl.tensor:
    """Returns uint64: bound w / 2^64 rounded down, of a bound below 2^32 and 64-bit w in two words."""
    wide = tl.cast(bound, tl.uint64)
    return (high * wide + ((low * wide) >> 32)) >> 32


@triton.jit
def uniform_ids(state, key, first, num_ids, TWO_WORDS: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    """Returns int64 [COUNT]: uniform ids in [0, num_ids); `first` and COUNT are multiples of 4."""
    if TWO_WORDS:
        high, low = _word_pairs(state, key, first, COUNT)
        return _below(high, low, num_ids).to(tl.int64)
    else:
        return one_word_ids(state, key, first, num_ids, COUNT)


@triton.jit
def popular_ids(state, key, first, num_ids, thresholds, alias, COUNT: tl.constexpr) -> tl.tensor:
    """Returns int64 [COUNT]: ids drawn from an alias table; `first` and COUNT are multiples of 2."""
    choice, coin = _word_pairs(state, key, first, COUNT)
    column = ((choice * tl.cast(num_ids, tl.uint64)) >> 32).to(tl.int64)
    kept = coin.to(tl.uint32) < tl.load(thresholds + column).to(tl.uint32, bitcast=True)
    return tl.where(kept, column, tl.load(alias + column).to(tl.int64))


@triton.jit
def run_ids(
    state, key, first, num_runs, TWO_WORDS: tl.constexpr, RUN: tl.constexpr, COUNT: tl.constexpr
) -> tl.tensor:
    """Returns int64 [COUNT]: ids of aligned runs of RUN consecutive ids, the runs drawn uniformly."""
    place = first + tl.arange(0, COUNT)
    number = place // RUN
    per_block: tl.constexpr = 2 if TWO_WORDS else 4
    w0, w1, w2, w3 = _four_words(state, key, (number // per_block).to(tl.uint32))
    slot = number % per_block
    if TWO_WORDS:
        high = tl.where(slot == 0, w0, w2).to(tl.uint64)
        low = tl.where(slot == 0, w1, w3).to(tl.uint64)
        run = _below(high, low, num_runs)
    else:
        word = tl.where(slot == 0, w0, tl.where(slot == 1, w1, tl.where(slot == 2, w2, w3)))
        run = (word.to(tl.uint64) * tl.cast(num_runs, tl.uint64)) >> 32
    return run.to(tl.int64) * RUN + place % RUN
