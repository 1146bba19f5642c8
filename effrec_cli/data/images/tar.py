"""Images in a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effrec_cli.data.archive import leads_outside
from effrec_cli.data.digests import digest_of
from effrec_cli.data.images.decode import check_bytes
from effrec_cli.data.images.found import Found, RowOf, held, name_of
from effrec_cli.errors import DataError


@dataclass(frozen=True)
class TarStore:
    """A tar, packed or not, of files named by item; it is read from its beginning to its end.

    Attributes:
        path: the file.
    """

    path: Path

    def digest(self, data_root: Path) -> str:
        """Returns the sha256 of the file."""
        return digest_of(self.path, data_root)

    def images(self, row_of: RowOf) -> Iterator[Found]:
        """Yields the images of items that have a row.

        Raises:
            DataError: the tar is damaged, or an entry is a link or leads outside.
        """
        with self._opened() as file:
            for info, name in self._entries(file):
                row = row_of(name)
                if row >= 0:
                    yield Found(row, info.name, held(partial(_member, file, info)))

    def names(self) -> Iterator[str]:
        """Yields the names that images go by."""
        with self._opened() as file:
            yield from (name for _, name in self._entries(file))

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, "r|*") as file:
                yield file
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the tar's
                raise
            raise DataError(
                "This tar is damaged or cut short.",
                where=f"{self.path}: {error}",
                fix="get or write it again",
            ) from error

    def _entries(self, file: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
        """Yields the files that are named as images are, and the items they are named by."""
        while (info := file.next()) is not None:
            self._refuse_harm(info)
            name = name_of(info.name)
            if name is not None and info.isfile():
                yield info, name
            file.members.clear()  # type: ignore[attr-defined]  # or it would keep every entry

    def _refuse_harm(self, info: tarfile.TarInfo) -> None:
        outside = leads_outside(info.name)
        if outside or not (info.isfile() or info.isdir()):
            what = "leads outside" if outside else "is a link or a device"
            raise DataError(
                "This tar is not read.",
                where=f"{self.path}: its entry '{info.name[:200]}' {what}",
                fix="write it again, with plain files alone",
            )


def _member(file: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    check_bytes(info.size)
    handle = file.extractfile(info)
    assert handle is not None  # only links and devices have none, and they were refused
    return handle.read()
