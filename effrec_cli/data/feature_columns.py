"""Dense and categorical columns of labelled rows, as they go through the preparation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import Block, Column
from effrec_cli.data.feature_kinds import MISSING, Category, Dense
from effrec_cli.data.spool import Spool

BLOCK_ROWS = 1 << 18
_PENDING = 1 << 20
UInt64 = NDArray[np.uint64]


def feature_columns(dense: Sequence[str], categorical: Sequence[str]) -> list[Column]:
    """Returns the columns to read; roles are the settings that name them, and the columns' names."""
    kinds = (("dense", dense, Dense()), ("categorical", categorical, Category()))
    return [
        Column(f"{setting} {name}", name, kind, setting=setting)
        for setting, names, kind in kinds
        for name in names
    ]


class FeatureColumns:
    """Collects features in file order; memory holds a block of rows and the distinct values of categories.

    Args:
        dense: names of the columns of numbers.
        categorical: names of the columns of categories.
        folder: where columns lie until they are prepared.
    """

    def __init__(self, dense: Sequence[str], categorical: Sequence[str], folder: Path) -> None:
        self._dense_roles = [f"dense {name}" for name in dense]
        self._roles = [f"categorical {name}" for name in categorical]
        self._folder = folder
        self._dense = Spool(folder, np.float32, len(dense)) if dense else None
        self._categories = Spool(folder, np.uint64, len(categorical)) if categorical else None
        self._values = [_Values() for _ in categorical]

    def add(self, block: Block) -> None:
        """Takes the next rows."""
        if self._dense is not None:
            self._dense.add(np.column_stack([block[role] for role in self._dense_roles]))
        if self._categories is not None:
            hashes = [block[role] for role in self._roles]
            self._categories.add(np.column_stack(hashes))
            for values, column in zip(self._values, hashes, strict=True):
                values.add(column)

    def finish(self) -> dict[str, NDArray[Any]]:
        """Returns the columns as arrays, as far as there are any.

        Returns:
            `labelled_dense` float32 [R, F], NaN where a value is missing; `labelled_categories` int32
            [R, C], 0 where a value is missing, else one more than its place among the column's values in
            the order of their hashes, so that no order of rows leaks through; `labelled_values` uint64,
            these hashes, column after column; `labelled_value_counts` int64 [C], how many each column has.
        """
        found: dict[str, NDArray[Any]] = {}
        if self._dense is not None:
            found["labelled_dense"] = self._dense.finish()
        if self._categories is not None:
            values = [each.finish() for each in self._values]
            found["labelled_categories"] = self._coded(self._categories, values)
            found["labelled_values"] = np.concatenate(values)
            found["labelled_value_counts"] = np.array([len(each) for each in values], dtype=np.int64)
        return found

    def _coded(self, hashes: Spool, values: list[UInt64]) -> NDArray[Any]:
        """Returns the numbers of hashed values, block by block through another file."""
        codes = Spool(self._folder, np.int32, len(values))
        for block in hashes.blocks(BLOCK_ROWS):
            columns = [
                np.where(block[:, at] == MISSING, 0, np.searchsorted(known, block[:, at]) + 1)
                for at, known in enumerate(values)
            ]
            codes.add(np.column_stack(columns))
        return codes.finish()


class _Values:
    """The distinct hashes of a column; memory grows with these and not with the rows."""

    def __init__(self) -> None:
        self._known: UInt64 = np.zeros(0, np.uint64)
        self._new: list[UInt64] = []
        self._pending = 0

    def add(self, hashes: UInt64) -> None:
        found = np.unique(hashes)
        self._new.append(found)
        self._pending += len(found)
        if self._pending > len(self._known) + _PENDING:
            self._merge()

    def finish(self) -> UInt64:
        self._merge()
        return self._known[self._known != MISSING]

    def _merge(self) -> None:
        self._known = np.unique(np.concatenate([self._known, *self._new]))
        self._new, self._pending = [], 0
