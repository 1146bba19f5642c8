"""A counter-based generator of item ids: Philox 4x32-10 in integer arithmetic on tensors.

An id is a pure function of (seed, step, row, j, number of items), so ids need not be kept: backward draws
them again, micro-batches and ranks that know their rows' global numbers draw what one process would, and
every device gives the same bits.

Layout of a draw, which any other implementation must follow:

- key: the low and high 32 bits of `seed`;
- counter: word 0 the block number, words 1 and 2 the low and high 32 bits of the row (of the group, where
  rows share their negatives; `groups.py`), word 3 the low 32 bits of `step`;
- uniform ids of up to 2^20 items: block b serves j = 4b .. 4b+3, one 32-bit word w each:
  `id = (w * V) >> 32`;
- above, block b serves j = 2b and 2b+1, each from a 64-bit number made of two words, the first the high
  half: `id = (word * V) >> 64`.

`samplers.py` has the layouts of other draws, all from the same words.

A multiply-high map gives an item floor(2^k / V) or one more of the 2^k words, so the probabilities of two
items differ by a share of at most V / 2^k: 2^-12 in the first form and 2^-33 in the second.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), constants and rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .tensors import INTEGERS, check_tensor, shape
from .values import whole_number

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


@dataclass(frozen=True)
class Key:
    """What all draws of a step have in common: numbers, or int64 tensors of no dimensions.

    Attributes:
        seed: 64 bits.
        step: of which the low 32 bits count.
    """

    seed: int | Tensor
    step: int | Tensor

    @classmethod
    def of(cls, state: Tensor) -> Key:
        """Returns the key of int64 [2] (seed, step); away from a CPU nothing is read, so nothing waits."""
        return cls(*state.tolist()) if state.is_cpu else cls(state[0], state[1])


@dataclass(frozen=True)
class Mapping:
    """How words of random bits become ids.

    Attributes:
        per_block: ids that the four words of one counter serve.
        ids: four words to that many int64 tensors, one a slot; may overwrite the words.
    """

    per_block: int
    ids: Callable[[Words], list[Tensor]]


def philox(counter: Words, key: tuple[int | Tensor, int | Tensor]) -> Words:
    """Returns four words of random bits for each counter: Philox 4x32 with 10 rounds.

    Args:
        counter: four int64 tensors that broadcast together, of values in [0, 2^32).
        key: two integers in [0, 2^32), or int64 tensors of no dimensions.

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
        num_negatives: N of 0 or more, ids for each row; the first n of N ids are those of a draw of n.
        num_items: V, below 2^31.
        seed: any 64-bit integer.
        step: in [0, 2^32).

    Returns:
        int64 [M, N] on the rows' device.

    Raises:
        ValueError: a number is out of its range. TypeError: it is no whole number, or rows are no integers.
    """
    check_tensor("rows", rows)
    if rows.dtype not in INTEGERS or rows.dim() != 1:
        raise TypeError(f"rows must be int64 [M], not {rows.dtype} {shape(rows)}")
    number = whole_number("num_negatives", num_negatives, 0)
    items = whole_number("num_items", num_items, 1, MAX_ITEMS)
    key = Key(*check_key(seed, step))
    ids = torch.empty(len(rows), number, dtype=torch.int64, device=rows.device)
    fill(ids, rows, key, uniform(items))
    return ids


def check_key(seed: int, step: int) -> tuple[int, int]:
    """Returns both; raises ValueError or TypeError where the generator's key and counter cannot hold them."""
    return whole_number("seed", seed), whole_number("step", step, 0, MASK)


def uniform(num_items: int) -> Mapping:
    """Returns the mapping to ids uniform over [0, num_items), V in [1, 2^31)."""
    if num_items <= ONE_WORD_ITEMS:
        return one_word(num_items)
    return Mapping(2, lambda words: _two_word_ids(words, num_items))


def one_word(num_items: int) -> Mapping:
    """Returns the mapping to ids uniform over [0, num_items), of one 32-bit word each."""
    return Mapping(4, lambda words: [multiply_high(word, num_items) for word in words])


def multiply_high(word: Tensor, num_items: int) -> Tensor:
    """Returns (w * V) >> 32, which fits as V < 2^31, in place of `word`."""
    return word.mul_(num_items).bitwise_right_shift_(32)


def fill(out: Tensor, rows: Tensor, key: Key, mapping: Mapping, flag: int = 0) -> None:
    """Writes the ids of `rows` (int64 [M]) into `out` (int32 or int64 [M, N], any strides).

    `flag` is a 32-bit number mixed into the counter's word 2: another one is another stream of draws.
    """
    per_block = mapping.per_block
    blocks = -(-out.shape[1] // per_block)
    room = _COUNTERS_AT_ONCE.get(rows.device.type, _COUNTERS_ON_DEVICE)
    # A row with more blocks than there is room for is cut at a block, so that every id keeps its counter.
    width = min(blocks, room)
    height = max(1, room // max(1, width))
    for first in range(0, blocks, width or 1):
        count = min(width, blocks - first)
        left, right = first * per_block, min((first + count) * per_block, out.shape[1])
        for top in range(0, len(rows), height):
            words = _words(rows[top : top + height], first, count, key, flag)
            block = out[top : top + height, left:right]
            for slot, column in enumerate(mapping.ids(words)):
                into = block[:, slot::per_block]
                into.copy_(column[:, : into.shape[1]])


def _words(rows: Tensor, first: int, count: int, key: Key, flag: int) -> Words:
    """Returns the words of blocks [first, first + count) of each row: four int64 [rows, count]."""
    block = torch.arange(first, first + count, dtype=torch.int64, device=rows.device)[None, :]
    row = rows.to(torch.int64)[:, None]
    step = torch.zeros_like(block[:, :1]).add_(key.step & MASK)
    counter = (block, row & MASK, ((row >> 32) & MASK) ^ flag, step)
    # The first rounds run on one row of blocks and one column of rows: broadcasting widens them in the third.
    return philox(counter, (key.seed & MASK, (key.seed >> 32) & MASK))


def _two_word_ids(words: Words, num_items: int) -> list[Tensor]:
    """Returns two int64 [rows, count]: ((high << 32 | low) * V) >> 64 in steps that fit 63 bits."""
    ids = []
    for high, low in (words[:2], words[2:]):
        carry = (low * num_items).bitwise_right_shift_(32)
        ids.append((high * num_items).add_(carry).bitwise_right_shift_(32))
    return ids
