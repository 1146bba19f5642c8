"""What a network reads of labelled rows: numbers of one scale, and numbers of categories' values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.attributes import Attributes
from effrec_cli.data.clicks import Clicks
from effrec_cli.data.feature_columns import BLOCK_ROWS
from effrec_cli.data.types import Int64
from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.dataset_table import TableConfig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """How features are read.

    Attributes:
        log1p: a number x as sign(x) ln(1 + |x|).
        min_count: values of a category that fewer training rows have are not known.
        buckets: numbers that the values of a column share that are not known; 0 makes them one, 0.
    """

    log1p: bool = False
    min_count: int = 1
    buckets: int = 0


def reading_of(config: DatasetConfig) -> Reading:
    """Returns how a dataset's settings want features to be read."""
    if not isinstance(config, TableConfig):
        return Reading()
    return Reading(config.log1p, config.min_category_count, config.rare_buckets)


class ClickFeatures:
    """Reads the features of some rows; what it needs to know of all comes from the training part alone.

    Numbers have mean 0 and deviation 1 over training rows, 0 where one is missing; a column of which
    training rows lack some is followed, behind all others, by one that says so. Values of a category have
    numbers from 1 on, in the order of their hashes; `min_count` and `buckets` decide about rare and new
    ones, and a missing one is 0. Users and items without a training row are -1.

    Memory: a block of rows, and eight bytes for each different value of a category.

    Args:
        clicks: the labelled rows.
        reading: how they are read.

    Attributes:
        has_ids: whether rows name users and items.
        num_dense: columns of numbers.
        cardinalities: numbers of each column of categories.
    """

    def __init__(self, clicks: Clicks, reading: Reading) -> None:
        self.clicks, self.reading = clicks, reading
        self.has_ids = clicks.users is not None
        train = clicks.of_part("train")
        self._mean, self._sd, self._flagged = _moments(clicks, reading, train)
        self._tables = _tables(clicks, reading, train)
        self.cardinalities = [int(table.max(initial=0)) + 1 for table in self._tables]
        if reading.buckets:
            self.cardinalities = [max(size, 1 + reading.buckets) for size in self.cardinalities]
        self.num_dense = clicks.dense.shape[1] + len(self._flagged)
        self._known: tuple[NDArray[np.bool_], ...] = ()
        if clicks.users is not None and clicks.items is not None:
            self._known = (
                _met(clicks.users, train, len(clicks.user_ids)),
                _met(clicks.items, train, len(clicks.item_ids)),
            )
        for each in clicks.about or ():
            self.num_dense += each.dense.shape[1] + each.flags.shape[1] + each.texts.shape[1]
            self.cardinalities += each.cardinalities.tolist()

    def ids(self, rows: Int64) -> Int64:
        """Returns the rows' users and items, int64 [b, 2], -1 without a training row; [b, 0] without any."""
        found = [
            np.where(known[of_rows], of_rows, -1)
            for known, of_rows in zip(self._known, self._numbers(rows), strict=True)
        ]
        return np.stack(found, 1).astype(np.int64) if found else np.zeros((len(rows), 0), np.int64)

    def dense(self, rows: Int64) -> Float32:
        """Returns the rows' numbers, float32 [b, num_dense]."""
        raw = _read(self.clicks, rows, self.reading)
        missing = np.isnan(raw)
        scaled = np.where(missing, 0, (raw - self._mean) / self._sd)
        parts = [scaled, missing[:, self._flagged]]
        for each, of_rows in self._about(rows):
            parts += [each.dense[of_rows], each.flags[of_rows], each.texts[of_rows]]
        return np.concatenate(parts, 1).astype(np.float32)

    def categories(self, rows: Int64) -> Int64:
        """Returns the rows' numbers of categories' values, int64 [b, len(cardinalities)]."""
        codes = self.clicks.categories[rows]
        columns = [table[codes[:, at]] for at, table in enumerate(self._tables)]
        own = np.stack(columns, 1) if columns else np.zeros((len(rows), 0), np.int64)
        return np.concatenate(
            [own, *(each.categories[of_rows] for each, of_rows in self._about(rows))], 1
        ).astype(np.int64)

    def _numbers(self, rows: Int64) -> list[NDArray[np.int32]]:
        """Returns the rows' users and items, or nothing."""
        users, items = self.clicks.users, self.clicks.items
        return [] if users is None or items is None else [users[rows], items[rows]]

    def _about(self, rows: Int64) -> list[tuple[Attributes, NDArray[np.int32]]]:
        """Returns the attributes of users and of items, each with which of them the rows name."""
        if self.clicks.about is None:
            return []
        return list(zip(self.clicks.about, self._numbers(rows), strict=True))


def _read(clicks: Clicks, rows: Int64, reading: Reading) -> Float64:
    """Returns the rows' numbers as they are read, unscaled, float64 [b, F]."""
    raw = np.asarray(clicks.dense[rows], dtype=np.float64)
    return np.sign(raw) * np.log1p(np.abs(raw)) if reading.log1p else raw


def _moments(clicks: Clicks, reading: Reading, train: Int64) -> tuple[Float64, Float64, Int64]:
    """Returns mean and deviation of each column of numbers, and the columns of which values are missing."""
    width = clicks.dense.shape[1]
    count, mean, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    for start in range(0, len(train) if width else 0, BLOCK_ROWS):
        raw = _read(clicks, train[start : start + BLOCK_ROWS], reading)
        there = ~np.isnan(raw)
        found = there.sum(0)
        some = np.where(there, raw, 0).sum(0) / np.maximum(found, 1)
        inside = np.where(there, (raw - some) ** 2, 0).sum(0)
        both = np.maximum(count + found, 1)
        squares += inside + (some - mean) ** 2 * count * found / both
        mean += (some - mean) * found / both
        count += found
    sd = np.sqrt(squares / np.maximum(count, 1))
    return mean, np.where(sd > 0, sd, 1), np.flatnonzero(count < len(train))


def _tables(clicks: Clicks, reading: Reading, train: Int64) -> list[Int64]:
    """Returns for each column of categories what its stored numbers become, int64 [values + 1]."""
    counts = [np.zeros(len(values) + 1, np.int64) for values in clicks.values]
    for start in range(0, len(train) if counts else 0, BLOCK_ROWS):
        block = clicks.categories[train[start : start + BLOCK_ROWS]]
        for at, of_column in enumerate(counts):
            of_column += np.bincount(block[:, at], minlength=len(of_column))
    return [_table(*each, reading) for each in zip(clicks.values, counts, strict=True)]


def _table(values: NDArray[np.uint64], counts: Int64, reading: Reading) -> Int64:
    """Returns the numbers of one column's values; known ones stand behind the buckets."""
    known = counts[1:] >= max(1, reading.min_count)
    table = np.zeros(len(counts), np.int64)
    if reading.buckets:
        table[1:] = 1 + (values % np.uint64(reading.buckets)).astype(np.int64)
    table[1:][known] = 1 + reading.buckets + np.arange(int(known.sum()))
    return table


def _met(numbers: NDArray[np.int32], train: Int64, size: int) -> NDArray[np.bool_]:
    """Returns which of `size` users or items stand in a training row, bool [size]."""
    found = np.zeros(size, dtype=bool)
    for start in range(0, len(train), BLOCK_ROWS):
        found[numbers[train[start : start + BLOCK_ROWS]]] = True
    return found
