"""From the world's numbers to the row numbers of prepared data, which hold a part of the items and users."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.histories import Block
from effrec_cli.data.synthetic.users import BLOCK_USERS
from effrec_cli.data.synthetic.world import Int32, Int64, World, users_of
from effrec_cli.data.types import RecData


class Rows:
    """Row numbers of items and users.

    Args:
        world: the items.
        data: the prepared data, whose raw ids ascend.

    Attributes:
        items: int32 [num_items] the world's number of each item row.
        users: int64 [num_users] likewise for users.
    """

    def __init__(self, world: World, data: RecData) -> None:
        self.items: Int32 = world.items_of(data.items.ids)
        self.users: Int64 = users_of(data.users.ids)
        self._by_item = np.full(world.num_items, -1, dtype=np.int32)
        self._by_item[self.items] = np.arange(len(self.items), dtype=np.int32)

    def of_items(self, items: NDArray[Any]) -> Int64:
        """Returns the rows of items, -1 for what the data do not hold (and for -1)."""
        return np.where(items < 0, -1, self._by_item[items]).astype(np.int64)

    def of_users(self, block: Block, owners: Int64) -> Int64:
        """Returns the rows of a block's users, -1 for those the data do not hold."""
        wanted = block.number * BLOCK_USERS + owners
        place = np.searchsorted(self.users, wanted).clip(max=len(self.users) - 1)
        return np.where(self.users[place] == wanted, place, -1)
