"""An array on the disk that is filled row by row, in any order."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.atomic import disk_faults


class ArrayFile:
    """A .npy file of a fixed shape whose rows are written as they come.

    Rows go through the file and not through a memory map: a full disk is then an error and not the end of
    the process.

    Args:
        path: the file, which is there.
        dtype: of its values.
        shape: of the array.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path = path
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.shape != shape or found.dtype != np.dtype(dtype):
            raise ValueError(f"{path.name} is another array")
        self._first, self._row = int(found.offset), int(found[:1].nbytes)
        self._file = path.open("r+b", buffering=0)

    @classmethod
    def made(cls, path: Path, dtype: str, shape: tuple[int, ...]) -> ArrayFile:
        """Returns a new file, for all of which there is space from now on.

        Raises:
            EnvironmentFault: there is not.
        """
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        with disk_faults(path), path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            _reserve(file.fileno(), file.tell() + np.dtype(dtype).itemsize * int(np.prod(shape)))
        return cls(path, dtype, shape)

    def write(self, items: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Writes rows [n, ...] to the places of items [n]."""
        data = memoryview(np.ascontiguousarray(rows).tobytes())
        cuts = [0, *(np.flatnonzero(np.diff(items) != 1) + 1).tolist(), len(items)]
        with disk_faults(self.path):
            for first, last in itertools.pairwise(cuts):
                if last > first:
                    place = self._first + self._row * int(items[first])
                    _write_all(self._file.fileno(), data[self._row * first : self._row * last], place)

    def flush(self) -> None:
        """Waits until all that was written is on the disk."""
        with disk_faults(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; what was written stays."""
        self._file.close()


def _reserve(handle: int, size: int) -> None:
    """Makes a file as long as it will be, with its space where the system can set that aside."""
    os.truncate(handle, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as fault:
            if fault.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _write_all(handle: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(handle, data, place)
        data, place = data[written:], place + written
