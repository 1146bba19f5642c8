"""Rows with a 0/1 label, all of them, for tasks that predict the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import Block
from effrec_cli.data.feature_columns import FeatureColumns
from effrec_cli.data.ids import IdEncoder
from effrec_cli.data.spool import Spool


class LabelledRows:
    """Collects labelled rows in file order.

    They have id lists of their own: a user or item that was never clicked is not in the catalogue of
    interactions, but is wanted here. Labels, times and features lie on the disk; ids take 8 bytes a row.

    Args:
        folder: where columns lie until they are prepared.
        dense: names of the columns of numbers.
        categorical: names of the columns of categories.

    Attributes:
        zeros: rows labelled 0 so far.
        rows: rows so far.
    """

    def __init__(self, folder: Path, dense: Sequence[str] = (), categorical: Sequence[str] = ()) -> None:
        self.zeros = self.rows = 0
        self._users, self._items = IdEncoder(), IdEncoder()
        self._has_ids = False
        self._folder = folder
        self._spools: dict[str, Spool] = {}
        self._features = FeatureColumns(dense, categorical, folder)

    def add(self, block: Block, ticks_per_second: int, part: int | None = None) -> None:
        """Takes the next rows, of a ready-made part where one is given; times are kept in whole seconds."""
        if "user" in block:
            self._has_ids = True
            self._users.add(block["user"])
            self._items.add(block["item"])
        self._spool("labels", np.int8, block["label"])
        if "time" in block:
            self._spool("labelled_times", np.int64, block["time"] // ticks_per_second)
        if part is not None:
            self._spool("labelled_part", np.uint8, np.full(len(block["label"]), part))
        self._features.add(block)
        self.rows += len(block["label"])
        self.zeros += int(np.count_nonzero(block["label"] == 0))

    def _spool(self, name: str, dtype: type, values: NDArray[Any]) -> None:
        if name not in self._spools:
            self._spools[name] = Spool(self._folder, dtype)
        self._spools[name].add(values)

    def finish(self) -> dict[str, NDArray[Any]]:
        """Returns the rows as arrays.

        Returns:
            `labels` int8 [R]; where the rows name users and items, `labelled_users` and `labelled_items`
            int32 [R], indices into `labelled_user_ids` and `labelled_item_ids` (raw ids, ascending);
            `labelled_times` int64 [R] Unix seconds, where there are times; `labelled_part` uint8 [R], where
            parts are ready-made; and features (see `FeatureColumns`).
        """
        rows = {name: spool.finish() for name, spool in self._spools.items()}
        if self._has_ids:
            rows["labelled_user_ids"], rows["labelled_users"] = self._users.finish()
            rows["labelled_item_ids"], rows["labelled_items"] = self._items.finish()
        return rows | self._features.finish()
