"""Uniform item ids from a counter-based generator: Philox 4x32-10 in integer arithmetic on tensors.

An id is a pure function of (seed, step, row, j, number of items), so ids need not be kept: backward draws
them again, micro-batches and ranks that know their rows' global numbers draw what one process would, and
every device gives the same bits.

Layout of a draw, which any other implementation must follow:

- key: the low and high 32 bits of `seed`;
- counter: word 0 the block number, words 1 and 2 the low and high 32 bits of the row, word 3 `step`;
- up to 2^20 items, block b serves ids j = 4b .. 4b+3, one 32-bit word w each: `id = (w * V) >> 32`;
- above, block b serves ids j = 2b and 2b+1, each from a 64-bit number made of two words, the first the high
  half: `id = (word * V) >> 64`.

A multiply-high map gives an item floor(2^k / V) or one more of the 2^k words, so the probabilities of two
items differ by a share of at most V / 2^k: 2^-12 in the first form and 2^-33 in the second.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), constants and rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
ROUNDS = 10
# The multipliers minus 2^32. A product with a 32-bit word then fits a signed 64-bit integer, and
# c * M = c * (M - 2^32) + (c << 32): same low half, and c more in the high half.
MULTIPLIERS = (0xD2511F53 - (1 << 32), 0xCD9E8D57 - (1 << 32))
WEYL = (0x9E3779B9, 0xBB67AE85)

ONE_WORD_ITEMS = 1 << 20
MAX_ITEMS = (1 << 31) - 1
# Counters in flight at a time: on a CPU so many that the rounds run within a core's cache.
_COUNTERS_AT_ONCE = {"cpu": 1 << 15}
_COUNTERS_ON_DEVICE = 1 << 20

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Returns four words of random bits for each counter: Philox 4x32 with 10 rounds.

    Args:
        counter: four int64 tensors that broadcast together, of values in [0, 2^32).
        key: two integers in [0, 2^32).

    Returns:
        four int64 tensors of values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c2 = (high1 ^ c1).bitwise_xor_(k0), (high0 ^ c3).bitwise_xor_(k1)
        c1, c3 = low1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Returns the high and low 32 bits of `word` times `multiplier + 2^32`, without overflow."""
    product = word * multiplier
    low = product & MASK
    high = product.bitwise_right_shift_(32).add_(word)
    return high, low


def draw_negatives(rows: Tensor, num_negatives: int, num_items: int, *, seed: int, step: int) -> Tensor:
    """Returns ids drawn uniformly from [0, num_items) with replacement, independently for each row.

    Args:
        rows: int64 [M], global row numbers (>= 0): the same row draws the same ids wherever it is.
        num_negatives: N, ids for each row; the first n of N ids are those of a draw of n.
        num_items: V, below 2^31.
        seed: any 64-bit integer.
        step: in [0, 2^32).

    Returns:
        int64 [M, N] on the rows' device.

    Raises:
        ValueError: `num_items`, `num_negatives` or `step` is out of its range.
    """
    _check_range(num_negatives, num_items, step)
    ids = torch.empty(len(rows), num_negatives, dtype=torch.int64, device=rows.device)
    fill_negatives(ids, rows, num_items, seed=seed, step=step)
    return ids


def fill_negatives(out: Tensor, rows: Tensor, num_items: int, *, seed: int, step: int) -> None:
    """Writes what `draw_negatives` returns into `out` (int32 or int64 [M, N], any strides)."""
    _check_range(out.shape[1], num_items, step)
    per_block = ids_per_block(num_items)
    blocks = -(-out.shape[1] // per_block)
    room = _COUNTERS_AT_ONCE.get(rows.device.type, _COUNTERS_ON_DEVICE)
    # A row with more blocks than there is room for is cut at a block, so that every id keeps its counter.
    width = min(blocks, room)
    height = max(1, room // max(1, width))
    for first in range(0, blocks, width or 1):
        count = min(width, blocks - first)
        left, right = first * per_block, min((first + count) * per_block, out.shape[1])
        for top in range(0, len(rows), height):
            words = _words(rows[top : top + height], first, count, seed, step)
            ids = _one_word_ids(words, num_items) if per_block == 4 else _two_word_ids(words, num_items)
            block = out[top : top + height, left:right]
            for slot, column in enumerate(ids):
                into = block[:, slot::per_block]
                into.copy_(column[:, : into.shape[1]])


def ids_per_block(num_items: int) -> int:
    """Returns how many ids one Philox block serves: 4 from one word each, 2 from two words each."""
    return 4 if num_items <= ONE_WORD_ITEMS else 2


def _words(rows: Tensor, first: int, count: int, seed: int, step: int) -> Words:
    """Returns the words of blocks [first, first + count) of each row: four int64 [rows, count]."""
    block = torch.arange(first, first + count, dtype=torch.int64, device=rows.device)[None, :]
    row = rows.to(torch.int64)[:, None]
    step_word = torch.full_like(block[:, :1], step)
    counter = (block, row & MASK, (row >> 32) & MASK, step_word)
    # The first rounds run on one row of blocks and one column of rows: broadcasting widens them in the third.
    return philox(counter, (seed & MASK, (seed >> 32) & MASK))


def _one_word_ids(words: Words, num_items: int) -> list[Tensor]:
    """Returns four int64 [rows, count], one a slot of the block: (w * V) >> 32, which fits as V < 2^31."""
    return [word.mul_(num_items).bitwise_right_shift_(32) for word in words]


def _two_word_ids(words: Words, num_items: int) -> list[Tensor]:
    """Returns two int64 [rows, count]: ((high << 32 | low) * V) >> 64 in steps that fit 63 bits."""
    ids = []
    for high, low in (words[:2], words[2:]):
        carry = (low * num_items).bitwise_right_shift_(32)
        ids.append((high * num_items).add_(carry).bitwise_right_shift_(32))
    return ids


def _check_range(num_negatives: int, num_items: int, step: int) -> None:
    if not 1 <= num_items <= MAX_ITEMS:
        raise ValueError(f"num_items must be in [1, 2^31), not {num_items}")
    if num_negatives < 0:
        raise ValueError(f"num_negatives must not be negative, but is {num_negatives}")
    if not 0 <= step <= MASK:
        raise ValueError(f"step must be in [0, 2^32), not {step}")
