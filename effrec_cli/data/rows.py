"""All interactions of a dataset in compact columns, as they go through the preparation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.ids import IdEncoder
from effrec_cli.data.source import RawChunk, Say, Source
from effrec_cli.data.types import Int32, Int64
from effrec_cli.errors import DataError

_SAY_EVERY_S = 5.0


@dataclass
class Rows:
    """One entry a row in every array.

    Attributes:
        users: int32; index into the user ids.
        items: int32; index into the item ids.
        times: int64 ticks, or None.
        ratings: float32, or None.
        parts: int8; TRAIN, VALID or TEST of a ready-made split, or None.
    """

    users: Int32
    items: Int32
    times: Int64 | None = None
    ratings: NDArray[np.float32] | None = None
    parts: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, which: NDArray[Any]) -> None:
        """Keeps or reorders the rows in place; one column at a time, so that memory stays low."""
        for name in ("users", "items", "times", "ratings", "parts"):
            column = getattr(self, name)
            if column is not None:
                setattr(self, name, column[which])


@dataclass
class Collected:
    """What a source delivered.

    Attributes:
        rows: all rows in file order.
        user_ids: raw user ids, ascending.
        item_ids: raw item ids, ascending.
    """

    rows: Rows
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]


class _Column:
    """A column that either every chunk has or none."""

    def __init__(self, name: str, dtype: type) -> None:
        self.name, self.dtype = name, dtype
        self._pieces: list[NDArray[Any]] = []
        self._chunks = 0

    def add(self, values: NDArray[Any] | None) -> None:
        self._chunks += 1
        if values is not None:
            self._pieces.append(values.astype(self.dtype, copy=False))

    def finish(self) -> NDArray[Any] | None:
        if self._pieces and len(self._pieces) != self._chunks:
            raise DataError(f"Some parts of the data have {self.name} and some have not.")
        whole = np.concatenate(self._pieces) if self._pieces else None
        self._pieces.clear()
        return whole


class _News:
    """Says every few seconds how many rows have been read, how fast, and how long the rest will take."""

    def __init__(self, say: Say, clock: Callable[[], float]) -> None:
        self._say, self._clock = say, clock
        self._began = self._said = clock()
        self._rows = 0

    def add(self, chunk: RawChunk) -> None:
        self._rows += len(chunk)
        now = self._clock()
        if now - self._said >= _SAY_EVERY_S:
            self._say(f"  {self._text(now - self._began, chunk.share)}")
            self._said = now

    def _text(self, seconds: float, share: float | None) -> str:
        rate = f"{self._rows:,} rows read, {self._rows / seconds:,.0f} rows/s"
        if not share:
            return rate
        return f"{rate}, {share:.0%} of all, {seconds * (1 - share) / share:,.0f} s left to read"


def collect(source: Source, say: Say, clock: Callable[[], float] = time.monotonic) -> Collected:
    """Returns all rows of a source, its ids replaced by their ranks.

    Args:
        source: of the rows.
        say: tells the user one line.
        clock: seconds from any fixed moment.

    Raises:
        DataError: a malformed row, or not one row.
    """
    users, items = IdEncoder(), IdEncoder()
    times, ratings = _Column("times", np.int64), _Column("ratings", np.float32)
    parts = _Column("parts", np.int8)
    news = _News(say, clock)
    for chunk in source.chunks():
        users.add(chunk.users)
        items.add(chunk.items)
        times.add(chunk.times)
        ratings.add(chunk.ratings)
        parts.add(None if chunk.part is None else np.full(len(chunk), chunk.part, np.int8))
        news.add(chunk)
    user_ids, user_codes = users.finish()
    item_ids, item_codes = items.finish()
    rows = Rows(user_codes, item_codes, times.finish(), ratings.finish(), parts.finish())
    return Collected(rows, user_ids, item_ids)


def compact(codes: Int32, size: int) -> tuple[Int64, Int32]:
    """Returns which of `size` codes occur, ascending, and every row's index into those."""
    present = counts(codes, size) > 0
    place = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present), place[codes]


def counts(codes: Int32, size: int, block: int = 1 << 22) -> Int64:
    """Returns how often each of `size` codes occurs; in blocks, since bincount widens its input to int64."""
    total = np.zeros(size, np.int64)
    for start in range(0, len(codes), block):
        total += np.bincount(codes[start : start + block], minlength=size)
    return total
