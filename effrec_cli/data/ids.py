"""Raw ids to row numbers: the rank of an id among all ids, so that no order of arrival leaks through."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Int32, Int64
from effrec_cli.errors import DataError


class IdEncoder:
    """Numbers raw ids that arrive chunk by chunk.

    Integers are ranked numerically, strings by code point. Memory: four bytes a row, and the ids of each
    chunk once.
    """

    def __init__(self) -> None:
        self._codes: list[Int32] = []
        self._uniques: list[Int64] = []
        self._seen = 0
        self._strings: dict[str, int] = {}
        self._text: bool | None = None

    def add(self, values: NDArray[Any]) -> None:
        """Takes the next rows' ids: integers, or an array of strings.

        Raises:
            DataError: this chunk holds strings and an earlier one integers, or the other way round.
        """
        text = values.dtype.kind in "UO"
        if self._text is not None and text != self._text:
            raise DataError("Some ids are whole numbers and some are text.", fix="give all ids in one form")
        self._text = text
        self._codes.append(self._add_strings(values) if text else self._add_integers(values))

    def _add_strings(self, values: NDArray[Any]) -> Int32:
        """Returns the order of first arrival of each string."""
        known, words = self._strings, values.tolist()
        for word in dict.fromkeys(words):
            known.setdefault(word, len(known))
        return np.fromiter(map(known.__getitem__, words), np.int32, len(words))

    def _add_integers(self, values: NDArray[Any]) -> Int32:
        """Returns each integer's place in the list of all chunks' distinct integers."""
        unique, codes = distinct(values.astype(np.int64, copy=False))
        self._uniques.append(unique)
        codes += np.int32(self._seen)
        self._seen += len(unique)
        return codes

    def finish(self) -> tuple[NDArray[Any], Int32]:
        """Returns all distinct ids in ascending order, and every row's index into them."""
        if self._text:
            ids, rank = self._rank_strings()
        else:
            ids, rank = self._rank_integers()
        codes = np.concatenate(self._codes) if self._codes else np.empty(0, np.int32)
        self._codes.clear()
        return ids, rank[codes]

    def _rank_integers(self) -> tuple[Int64, Int32]:
        every = np.concatenate(self._uniques) if self._uniques else np.empty(0, np.int64)
        ids, rank = np.unique(every, return_inverse=True)
        return ids, rank.astype(np.int32)

    def _rank_strings(self) -> tuple[NDArray[Any], Int32]:
        ordered = sorted(self._strings)
        rank = np.empty(len(ordered), np.int32)
        arrival = np.fromiter((self._strings[text] for text in ordered), np.int64, len(ordered))
        rank[arrival] = np.arange(len(ordered), dtype=np.int32)
        return np.array(ordered, dtype=np.str_), rank


def distinct(values: Int64) -> tuple[Int64, Int32]:
    """Returns the distinct integers in ascending order, and every value's index into them.

    Values within a narrow range are counted rather than sorted, which is several times faster.
    """
    if not len(values):
        return np.empty(0, np.int64), np.empty(0, np.int32)
    low, high = int(values.min()), int(values.max())
    if high - low > 4 * len(values) + 65536:
        unique, codes = np.unique(values, return_inverse=True)
        return unique, codes.astype(np.int32)
    shifted = values - low
    present = np.zeros(high - low + 1, dtype=bool)
    present[shifted] = True
    place = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present) + low, place[shifted]


def lookup(ids: NDArray[Any], wanted: NDArray[Any]) -> Int64:
    """Returns the row number of each wanted raw id in the ascending `ids`, or -1 where it is not there."""
    if not len(ids):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[place] == wanted, place, -1).astype(np.int64)
