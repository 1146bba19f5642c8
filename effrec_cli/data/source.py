"""What a dataset family must offer: raw rows in chunks, and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import RecData

Say = Callable[[str], None]
"""Tells the user one line about what is going on."""

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class RawChunk:
    """Some consecutive raw rows; all arrays have one entry a row.

    Attributes:
        users: raw user ids, int64 or an array of strings; the same kind in every chunk.
        items: raw item ids, likewise.
        times: int64 Unix seconds, or None where the source has none.
        ratings: float32, or None.
        part: TRAIN, VALID or TEST where the split is ready-made; else None.
        share: how much of all there is to read has been read, in 0..1; None where nobody knows.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    times: NDArray[np.int64] | None = None
    ratings: NDArray[np.float32] | None = None
    part: int | None = None
    share: float | None = None

    def __len__(self) -> int:
        return len(self.users)


class Source(Protocol):
    """One dataset in its raw form. Built as `Source(config, data_root)`."""

    def __init__(self, config: Any, data_root: Path) -> None: ...

    def ensure(self, say: Say) -> None:
        """Makes the raw data available, downloading where that is possible.

        Raises:
            DataError: they cannot be had; the fix names the import command.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Returns what identifies the raw content (digests of files, or the generator's settings)."""
        ...

    def chunks(self) -> Iterator[RawChunk]:
        """Yields all rows in file order, in bounded memory.

        Raises:
            DataError: a malformed row, with file, line, column and value.
        """
        ...

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the titles of these raw item ids, or None where there are none."""
        ...

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns arrays to keep beside the prepared data, aligned with its row numbers."""
        ...

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns the best possible ranker's score on the test cases, where the source knows it."""
        ...

    def stats(self) -> dict[str, int]:
        """Returns counts of rows read and dropped by the reader, known after `chunks` has ended."""
        ...
