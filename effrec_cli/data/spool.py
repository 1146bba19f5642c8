"""Columns that are larger than memory while they are read: in a nameless file below the data root."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.atomic import disk_faults, make_folder


class Spool:
    """Takes rows block by block and gives them back as one array, which lies on the disk.

    The file has no name and goes with the array, also where the process is killed.

    Args:
        folder: where the file is; made where it is missing.
        dtype: of the values.
        width: columns of a row; None for a flat array.
    """

    def __init__(self, folder: Path, dtype: Any, width: int | None = None) -> None:
        make_folder(folder)
        self.folder, self.dtype, self.width = folder, np.dtype(dtype), width
        with disk_faults(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as its array
        self.rows = 0

    def add(self, values: NDArray[Any]) -> None:
        """Takes the next rows, [n] or [n, width]."""
        with disk_faults(self.folder):
            self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.rows += len(values)

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yields all rows again, so many at a time, without mapping the file into memory."""
        width = 1 if self.width is None else self.width
        self._file.seek(0)
        while read := self._file.read(rows * width * self.dtype.itemsize):
            yield np.frombuffer(read, self.dtype).reshape((-1,) if self.width is None else (-1, width))

    def finish(self) -> NDArray[Any]:
        """Returns all rows, [rows] or [rows, width], memory-mapped and read-only."""
        shape = (self.rows,) if self.width is None else (self.rows, self.width)
        with disk_faults(self.folder):
            self._file.flush()
        if not np.prod(shape):
            return np.zeros(shape, self.dtype)
        return np.memmap(self._file, self.dtype, mode="r", shape=shape)
