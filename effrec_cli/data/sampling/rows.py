"""A dataset's training rows with their hashes, a block of users at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.sampling.hashing import UInt64, id_digests, row_hashes, told_apart
from effrec_cli.data.types import Int32, Int64, RecData

BLOCK_ROWS = 1 << 20
"""Training rows of a block; one user with more has a block alone."""


@dataclass(frozen=True)
class Block:
    """The n training rows of some users, user after user and in time order.

    Attributes:
        first_user: number of the first of them.
        first_row: number of the first row among all training rows.
        counts: int64, rows of each user.
        users: int64 [n], rows of the users' catalogue.
        items: int32 [n].
        positions: int64 [n] in `Sequences.items`.
        source: the rows of which these are some.
    """

    first_user: int
    first_row: int
    counts: Int64
    users: Int64
    items: Int32
    positions: Int64
    source: Rows

    def __len__(self) -> int:
        return len(self.items)

    @property
    def rows(self) -> slice:
        """Where the block's rows are among all training rows."""
        return slice(self.first_row, self.first_row + len(self))

    @cached_property
    def hashes(self) -> UInt64:
        """Returns a hash of each row, uint64 [n]."""
        times = self.source.data.sequences.times
        users, items = self.source.users[self.users], self.source.items[self.items]
        at = None if times is None else np.asarray(times[self.positions])
        return told_apart(row_hashes(self.source.seed, users, items, at))

    def of_users(self, flags: NDArray[np.bool_]) -> Int64:
        """Returns how many of each user's rows are flagged, int64 like `counts`."""
        return np.bincount((self.users - self.first_user)[flags], minlength=len(self.counts))

    @property
    def in_user(self) -> Int64:
        """Returns each row's place among its user's training rows, oldest first, int64 [n]."""
        before = np.cumsum(self.counts) - self.counts
        return np.arange(len(self)) - np.repeat(before, self.counts)


class Rows:
    """All training rows of a dataset, to go over as often as a mode needs.

    Beside a block it holds eight bytes for each user and item.

    Args:
        data: the dataset; nothing of it may be sampled yet.
        seed: of the hash.
        block_rows: rows of a block at most.

    Attributes:
        counts: int64 [num_users], training rows of each user.
        users: uint64 [num_users], digests of raw user ids.
        items: uint64 [num_items], digests of raw item ids.
        largest: rows of the largest block so far.
    """

    def __init__(self, data: RecData, seed: int, block_rows: int = BLOCK_ROWS) -> None:
        self.data, self.seed, self.block_rows = data, seed, block_rows
        self.counts: Int64 = np.asarray(data.train_end - data.train_start)
        self.users, self.items = id_digests(data.users.ids), id_digests(data.items.ids)
        self.largest = 0

    def __len__(self) -> int:
        return self.data.num_train

    def __iter__(self) -> Iterator[Block]:
        ends = np.cumsum(self.counts)
        first = row = 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, row + self.block_rows, side="right")))
            yield self._block(first, last, row)
            first, row = last, int(ends[last - 1])

    def _block(self, first: int, last: int, row: int) -> Block:
        data = self.data
        counts = self.counts[first:last]
        shift = np.asarray(data.train_start[first:last]) - (np.cumsum(counts) - counts)
        positions = np.arange(int(counts.sum())) + np.repeat(shift, counts)
        users, items = np.repeat(np.arange(first, last), counts), np.asarray(data.sequences.items[positions])
        self.largest = max(self.largest, len(items))
        return Block(first, row, counts, users, items, positions, self)

    def item_counts(self) -> Int64:
        """Returns the training rows of each item, int64 [num_items]."""
        return self.data.train_counts()


def training_hashes(data: RecData, seed: int) -> NDArray[np.uint64]:
    """Returns the hash of each training row in the rows' order, uint64 [num_train]: eight bytes a row."""
    found = np.empty(data.num_train, dtype=np.uint64)
    for block in Rows(data, seed):
        found[block.rows] = block.hashes
    return found
