"""Rows with a 0/1 label, all of them, for tasks that predict the label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import Block
from effrec_cli.data.ids import IdEncoder


class LabelledRows:
    """Collects labelled rows in file order.

    They have id lists of their own: a user or item that was never clicked is not in the catalogue of
    interactions, but is wanted here.

    Attributes:
        zeros: rows labelled 0 so far.
    """

    def __init__(self) -> None:
        self.zeros = 0
        self._users, self._items = IdEncoder(), IdEncoder()
        self._labels: list[NDArray[np.int8]] = []
        self._times: list[NDArray[np.int64]] = []

    def add(self, block: Block, ticks_per_second: int) -> None:
        """Takes the next rows; times are kept in whole seconds."""
        self._users.add(block["user"])
        self._items.add(block["item"])
        self._labels.append(block["label"])
        self.zeros += int(np.count_nonzero(block["label"] == 0))
        if "time" in block:
            self._times.append(block["time"] // ticks_per_second)

    def finish(self) -> dict[str, NDArray[Any]]:
        """Returns the rows as arrays.

        Returns:
            `labelled_users` and `labelled_items` int32 [R], indices into `labelled_user_ids` and
            `labelled_item_ids` (raw ids, ascending); `labels` int8 [R]; `labelled_times` int64 [R] Unix
            seconds, where there are times.
        """
        user_ids, users = self._users.finish()
        item_ids, items = self._items.finish()
        rows = {
            "labelled_users": users,
            "labelled_items": items,
            "labelled_user_ids": user_ids,
            "labelled_item_ids": item_ids,
            "labels": np.concatenate(self._labels),
        }
        if self._times:
            rows["labelled_times"] = np.concatenate(self._times)
        return rows
