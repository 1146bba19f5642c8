"""What is known of users and items beside their ids, as arrays that a network can read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.text_vectors import text_vectors
from effrec_cli.data.types import Int32, Int64, RecData
from effrec_cli.schema.attributes import KINDS

Float32 = NDArray[np.float32]

# Which side arrays are of which kind, in the order of their columns.
_USERS = {
    "dense": ("user_features", "user_age"),
    "categories": ("user_categories", "user_gender", "user_occupation"),
    "flags": (),
}
_ITEMS = {"dense": ("item_features",), "categories": ("item_categories",), "flags": ("item_genres",)}


@dataclass(frozen=True)
class Attributes:
    """What is known of n users, or of n items.

    Attributes:
        dense: float32 [n, F], each column with mean 0 and standard deviation 1 over those that training
            meets; 0 where a value is missing.
        categories: int32 [n, C], from 1 on; 0 where it is not known.
        cardinalities: int64 [C]; every value of a column is below its own.
        flags: uint8 [n, G], any number of them set, such as genres.
        texts: float32 [n, D] vectors of texts; D is 0 where there are none.
    """

    dense: Float32
    categories: Int32
    cardinalities: Int64
    flags: NDArray[np.uint8]
    texts: Float32

    def __len__(self) -> int:
        return len(self.dense)


def attributes_of(
    data: RecData, kinds: Collection[str] = KINDS, text_dim: int = 32
) -> tuple[Attributes, Attributes]:
    """Returns the attributes of the users and of the items, from the dataset's side arrays and titles.

    Numbers are scaled by the users and items that stand in training rows, each counted once: what a test
    row alone would tell has no say.

    Args:
        data: the dataset; of a sample, the whole.
        kinds: which of `KINDS` to read; what a dataset does not have is empty.
        text_dim: D, width of text vectors.
    """
    users = _table(data.side, _USERS, kinds, np.asarray(data.train_end) > np.asarray(data.train_start))
    texts = text_vectors(data, text_dim) if "text" in kinds else None
    return users, _table(data.side, _ITEMS, kinds, data.train_counts() > 0, texts)


def nothing_known(rows: int) -> Attributes:
    """Returns attributes without columns, of `rows` users or items."""
    return _table({}, _USERS, (), np.zeros(rows, dtype=bool))


def _table(
    side: Mapping[str, NDArray[Any]],
    names: Mapping[str, tuple[str, ...]],
    kinds: Collection[str],
    met: NDArray[np.bool_],
    texts: Float32 | None = None,
) -> Attributes:
    """Returns the columns of some side arrays, by kind.

    Args:
        side: the dataset's arrays, [n] or [n, columns].
        names: of the arrays of each kind.
        kinds: to read.
        met: bool [n], who stands in training rows.
        texts: float32 [n, D].
    """
    columns = {
        kind: _columns([side[name] for name in of_kind if kind in kinds and name in side], len(met), kind)
        for kind, of_kind in names.items()
    }
    categories = np.maximum(columns["categories"].astype(np.int32), -1) + 1
    return Attributes(
        dense=_standardised(columns["dense"], met),
        categories=categories,
        cardinalities=categories.max(axis=0, initial=0).astype(np.int64) + 1,
        flags=columns["flags"].astype(np.uint8),
        texts=np.zeros((len(met), 0), np.float32) if texts is None else texts,
    )


def _columns(arrays: list[NDArray[Any]], rows: int, kind: str) -> NDArray[Any]:
    """Returns arrays [n] or [n, columns] side by side, [n, all columns]; of numbers NaN where one is missing.

    Below 0 a whole number, such as an age, says that nothing is known, as NaN does in a column of reals.
    """
    if kind == "dense":
        arrays = [np.where(each < 0, np.nan, each) if each.dtype.kind == "i" else each for each in arrays]
    empty = np.zeros((rows, 0), arrays[0].dtype if arrays else np.float32)
    return np.column_stack([empty, *arrays])


def _standardised(values: NDArray[Any], met: NDArray[np.bool_]) -> Float32:
    """Returns columns of mean 0 and deviation 1 over the rows that are `met`, 0 where a value is missing.

    A column of which some values are missing is followed, behind all others, by one that says which.
    """
    missing = np.isnan(values)
    heard = met[:, None] & ~missing
    count = np.maximum(heard.sum(axis=0), 1)
    mean = np.where(heard, values, 0).sum(axis=0, dtype=np.float64) / count
    away = np.where(missing, 0, values - mean)
    sd = np.sqrt(np.where(heard, away**2, 0).sum(axis=0) / count)
    scaled = away / np.where(sd > 0, sd, 1)
    return np.column_stack([scaled, missing[:, missing.any(axis=0)]]).astype(np.float32)
