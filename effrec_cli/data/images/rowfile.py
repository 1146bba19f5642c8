"""Arrays of equal rows written in any order, and not by a mapping.

A mapping's pages would count as memory of the process, and a full disk would end it by a signal.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from effrec_cli.data.atomic import disk_faults, make_folder
from effrec_cli.data.fetch import check_free_space


@dataclass(frozen=True)
class RowFile:
    """An open file of rows; those never written are zeros.

    Attributes:
        handle: the file.
        path: what to call it in errors.
        row_bytes: of each row.
        offset: bytes before the first row.
    """

    handle: BinaryIO
    path: Path
    row_bytes: int
    offset: int = 0

    def write(self, row: int, data: bytes) -> None:
        """Writes one row.

        Raises:
            EnvironmentFault: the disk is full.
        """
        with disk_faults(self.path):
            at, left = self._at(row), memoryview(data)
            while left:
                written = os.pwrite(self.handle.fileno(), left, at)
                at, left = at + written, left[written:]

    def read(self, row: int) -> bytes:
        """Returns one row."""
        return os.pread(self.handle.fileno(), self.row_bytes, self._at(row))

    def _at(self, row: int) -> int:
        return self.offset + row * self.row_bytes


@contextmanager
def array_file(path: Path, shape: tuple[int, ...]) -> Iterator[RowFile]:
    """Yields the rows of a new .npy file, uint8 of `shape`, all zero.

    Raises:
        EnvironmentFault: the disk has too little space.
    """
    row_bytes = math.prod(shape[1:])
    check_free_space(path.parent, shape[0] * row_bytes)
    with disk_faults(path), path.open("wb+") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.flush()
        rows = RowFile(handle, path, row_bytes, handle.tell())
        handle.truncate(rows.offset + shape[0] * row_bytes)
        yield rows


@contextmanager
def scratch_file(folder: Path, shape: tuple[int, ...]) -> Iterator[RowFile]:
    """Yields rows in a file without a name, which is gone with its process, however that ends.

    Raises:
        EnvironmentFault: the disk has too little space, also for a copy of the rows.
    """
    make_folder(folder)
    row_bytes = math.prod(shape[1:])
    check_free_space(folder, 2 * shape[0] * row_bytes)
    with disk_faults(folder), tempfile.TemporaryFile(dir=folder) as handle:
        handle.truncate(shape[0] * row_bytes)
        yield RowFile(handle, folder, row_bytes)
