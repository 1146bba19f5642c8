"""The n smallest or largest of many numbers: exact, ties by position, without sorting or copying them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Blocks = Callable[[], Iterable[Tensor]]
"""Gives the same numbers, float32 [n] of 0 or more, block by block, each time that it is called."""
_BITS = 8
_BINS = 1 << _BITS
_TOP = torch.iinfo(torch.int32).max


@dataclass(frozen=True)
class Limit:
    """Where the n smallest, or largest, of some numbers end.

    Attributes:
        bits: the last one's bit pattern; of the largest, what is left of it to the largest there is.
        ties: how many of those that equal it are among the n.
        largest: whether it is about the largest.
    """

    bits: int
    ties: int
    largest: bool

    def taken(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields which numbers of each block are among the n, bool [n]; of equals the first are."""
        left = self.ties
        for block in blocks:
            bits = _bits(block, self.largest)
            tied = bits == self.bits
            tied &= tied.cumsum(0) <= left
            left -= int(tied.sum())
            yield (bits < self.bits) | tied


def limit(blocks: Blocks, count: int, *, largest: bool) -> Limit:
    """Returns where the `count` smallest or largest numbers end.

    A radix selection: the bit patterns of floats that are not negative rise as they do, and four passes look
    at eight more bits of them each. One block at a time is held.

    Args:
        blocks: the numbers.
        count: from 0 to how many there are; 0 takes none.
        largest: look for the largest.
    """
    if count <= 0:
        return Limit(-1, 0, largest)
    prefix, left = 0, count
    for shift in (24, 16, 8, 0):
        bins = [_bins(_bits(block, largest), prefix, shift) for block in blocks()]
        upto = torch.stack(bins).sum(0).cumsum(0).tolist()  # in this bin or one before
        chosen = next(at for at, number in enumerate(upto) if number >= left)
        left -= upto[chosen - 1] if chosen else 0
        prefix = (prefix << _BITS) | chosen
    return Limit(prefix, left, largest)


def largest_of_rows(table: Tensor, width: int) -> Tensor:
    """Returns which numbers of a table [N, d] are the `width` largest of their row; of equals the first."""
    order = table.abs().sort(dim=1, descending=True, stable=True).indices[:, :width]
    return torch.zeros_like(table, dtype=torch.bool).scatter_(1, order, True)


def _bits(block: Tensor, largest: bool) -> Tensor:
    """Returns integers that rise as the numbers do, or fall where the largest are looked for."""
    bits = block.float().contiguous().view(torch.int32)
    return _TOP - bits if largest else bits


def _bins(bits: Tensor, prefix: int, shift: int) -> Tensor:
    """Returns how many have each value of the eight bits at `shift`, of those that begin with `prefix`."""
    if shift < 24:
        bits = bits[(bits >> (shift + _BITS)) == prefix]
    return torch.bincount((bits >> shift) & (_BINS - 1), minlength=_BINS)
