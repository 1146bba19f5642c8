"""Titles by raw item id, kept while files are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Titles:
    """The first title met of each item.

    Args:
        chars: characters of a title that are kept; one long text widens the array of all.
    """

    def __init__(self, chars: int) -> None:
        self._chars = chars
        self._titles: dict[Any, str] = {}

    def keep(self, items: NDArray[Any], titles: NDArray[Any]) -> None:
        """Keeps the titles of items that have none yet."""
        unique, first = np.unique(items, return_index=True)
        for item, title in zip(unique.tolist(), titles[first].tolist(), strict=True):
            self._titles.setdefault(item, title[: self._chars])

    def of(self, item_ids: NDArray[Any]) -> NDArray[np.str_]:
        """Returns these raw item ids' titles, "" where an item has none."""
        return np.array([self._titles.get(item, "") for item in item_ids.tolist()], dtype=np.str_)
