"""Images in a folder of files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effrec_cli.data.digests import remembered
from effrec_cli.data.images.decode import BadImageError, check_bytes
from effrec_cli.data.images.found import Found, RowOf, name_of


@dataclass(frozen=True)
class FolderStore:
    """A folder of files named by item, those of sub-folders too.

    Attributes:
        path: the folder.
    """

    path: Path

    def digest(self, data_root: Path) -> str:
        """Returns the sha256 of names and contents, remembered while no name, size or time changes."""
        listed = sorted(self._listed())
        listing = hashlib.sha256(repr(listed).encode(errors="surrogateescape")).hexdigest()
        return remembered(
            str(self.path.resolve()), {"listing": listing}, lambda: self._content(listed), data_root
        )

    def _listed(self) -> Iterator[tuple[str, int, int]]:
        """Yields each image's path in the folder, size and time of change."""
        for file in self._files():
            known = file.stat()
            yield str(file.relative_to(self.path)), known.st_size, known.st_mtime_ns

    def _content(self, listed: list[tuple[str, int, int]]) -> str:
        whole = hashlib.sha256()
        for name, _, _ in listed:
            whole.update(f"{name}\0".encode(errors="surrogateescape"))
            try:
                with (self.path / name).open("rb") as handle:
                    whole.update(hashlib.file_digest(handle, "sha256").digest())
            except OSError as fault:  # what cannot be read is an image that cannot be used
                whole.update(f"errno {fault.errno}".encode())
        return whole.hexdigest()

    def _files(self) -> Iterator[Path]:
        """Yields the image files in the order of their names; no pipes or devices, which would block."""
        for folder, inner, names in os.walk(self.path):
            inner.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if name_of(name) is not None and file.is_file():
                    yield file

    def images(self, row_of: RowOf) -> Iterator[Found]:
        """Yields the images of items that have a row."""
        for file in self._files():
            row = row_of(name_of(file.name) or "")
            if row >= 0:
                yield Found(row, str(file.relative_to(self.path)), partial(_read, file))

    def names(self) -> Iterator[str]:
        """Yields the names that images go by."""
        return (name_of(file.name) or "" for file in self._files())


def _read(file: Path) -> bytes:
    """Returns a file's bytes, which must be an ordinary one of a size that images have."""
    try:
        with file.open("rb") as handle:
            known = os.fstat(handle.fileno())
            if not stat.S_ISREG(known.st_mode):
                raise BadImageError("damaged", "is no ordinary file")
            check_bytes(known.st_size)
            return handle.read()
    except OSError as fault:
        raise BadImageError("damaged", f"cannot be read ({fault.strerror})") from fault
