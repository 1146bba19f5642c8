"""Which items a user has met, packed for draws of items that the user has not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Int64, RecData


class KnownPairs:
    """The distinct items of each user's training rows.

    Item number j (from 0, ascending) of user u is kept as u V + item - j: the number of items below it that
    the user has *not* met. So the r-th item that a user has not met is found by one binary search, whatever
    the user has met.

    Args:
        data: whose training rows are meant; of a sample, the whole dataset.

    Attributes:
        num_items: V.
        first: int64 [num_users + 1], where each user's keys begin.
        keys: [n], in the smallest unsigned type that holds num_users x V.
    """

    def __init__(self, data: RecData) -> None:
        self.num_items = data.num_items
        start, end = np.asarray(data.train_start), np.asarray(data.train_end)
        users = np.repeat(np.arange(data.num_users), end - start)
        shift = start - np.concatenate([[0], np.cumsum(end - start)[:-1]])
        items = data.sequences.items[np.arange(len(users)) + shift[users]]
        cells = np.unique(users * self.num_items + items)
        owners = cells // self.num_items
        self.first = np.searchsorted(owners, np.arange(data.num_users + 1)).astype(np.int64)
        kind = np.min_scalar_type(max(1, data.num_users * self.num_items))
        self.keys: NDArray[np.unsignedinteger] = (cells - self._place(owners)).astype(kind)

    @property
    def bytes(self) -> int:
        """Bytes that it takes."""
        return self.keys.nbytes + self.first.nbytes

    def unmet(self, users: Int64) -> Int64:
        """Returns how many items each of the users has not met, int64 [n]."""
        return self.num_items - (self.first[users + 1] - self.first[users])

    def unmet_item(self, users: Int64, ranks: Int64) -> Int64:
        """Returns the item that stands at `ranks` (from 0) among those that each user has not met, int64 [n].

        Args:
            users: int64 [n].
            ranks: int64 [n], each below `unmet` of its user.
        """
        wanted = (users * self.num_items + ranks).astype(self.keys.dtype)
        return ranks + np.searchsorted(self.keys, wanted, side="right") - self.first[users]

    def items_of(self, users: Int64) -> tuple[Int64, Int64]:
        """Returns the users' items one user after the other, int64 [m], and whose they are, int64 [m]."""
        sizes = self.first[users + 1] - self.first[users]
        rows = np.repeat(np.arange(len(users)), sizes)
        at = np.arange(len(rows)) + (self.first[users] - (np.cumsum(sizes) - sizes))[rows]
        place = at - self.first[users][rows]
        return self.keys[at].astype(np.int64) - users[rows] * self.num_items + place, rows

    def _place(self, owners: Int64) -> Int64:
        """Returns each key's place among those of its user."""
        return np.arange(len(owners)) - self.first[owners]
