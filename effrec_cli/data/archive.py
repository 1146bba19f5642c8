"""Unpacks the wanted files of a zip or tar archive, and refuses an archive that could do harm."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from effrec_cli.data.atomic import disk_faults
from effrec_cli.data.fetch import check_free_space
from effrec_cli.errors import DataError

MOST_MEMBERS = 10_000
MOST_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)

_MARKS = {"zip": b"PK", "tar.gz": b"\x1f\x8b", "tar.bz2": b"BZh", "tar.xz": b"\xfd7zXZ"}
"""What an archive begins with, also one that is cut short."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        name: its path inside.
        size: bytes it says it unpacks to.
        plain: it is an ordinary file or folder, not a link or a device.
        is_file: it is a file.
        open: opens it for reading.
    """

    name: str
    size: int
    plain: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, target: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Unpacks the files whose bare name is `wanted` into `target`, without folders, and returns their names.

    Of two files of one name, the one nearer to the top is taken.

    Raises:
        DataError: the file is no archive, is cut short, or has entries with paths that lead outside, links,
            too many entries or too many bytes.
        EnvironmentFault: the disk has too little space.
    """
    with _members(archive) as members:
        _check_bounds(members, archive)
        chosen: dict[str, _Member] = {}
        for member in sorted(members, key=lambda m: m.name.count("/")):
            bare = PurePosixPath(member.name).name
            if member.is_file and wanted(bare):
                chosen.setdefault(bare, member)
        check_free_space(target, sum(member.size for member in chosen.values()))
        for bare, member in chosen.items():
            _extract(member, target / bare, archive)
    return sorted(chosen)


def bare_names(archive: Path) -> list[str]:
    """Returns the names of the files in an archive, without folders; raises DataError as `unpack` does."""
    with _members(archive) as members:
        return [PurePosixPath(member.name).name for member in members if member.is_file]


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yields the entries of an archive; a damaged one is a DataError wherever it shows."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                yield [_zip_member(file, info) for info in file.infolist()]
        else:
            with tarfile.open(archive) as file:
                yield [_tar_member(file, info) for info in file.getmembers()]
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the archive's
            raise
        raise _unreadable(archive, error) from error


def _unreadable(archive: Path, error: Exception) -> DataError:
    """Returns what is wrong with an archive in plain words; those of the library would help nobody."""
    with archive.open("rb") as handle:
        head = handle.read(512)
    where = f"{archive} ({archive.stat().st_size:,} bytes)"
    if "password" in str(error):
        return DataError(
            "This archive is locked by a password.", where=where, fix="unpack it, and import the folder"
        )
    kind = next((name for name, marks in _MARKS.items() if head.startswith(marks)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "tar"
    if kind is not None:
        what = f"This {kind} archive is damaged or cut short."
        return DataError(
            what, where=where, fix="get the file again, and compare its size with the publisher's"
        )
    like = "; it looks like a web page" if head.lstrip().startswith(b"<") else ""
    return DataError(f"This is no zip or tar archive{like}.", where=where, fix="get the file again")


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    plain = mode == 0 or stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
    return _Member(info.filename, info.file_size, plain, not info.is_dir(), lambda: file.open(info))


def _tar_member(file: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    def opened() -> IO[bytes]:
        handle = file.extractfile(info)
        assert handle is not None  # Only links and devices have none, and they were refused.
        return handle

    return _Member(info.name, info.size, info.isfile() or info.isdir(), info.isfile(), opened)


def _check_bounds(members: list[_Member], archive: Path) -> None:
    if len(members) > MOST_MEMBERS:
        raise _refused(archive, f"it has {len(members):,} entries, more than {MOST_MEMBERS:,}")
    total = sum(member.size for member in members)
    if total > MOST_BYTES:
        raise _refused(archive, f"it unpacks to {total / 2**30:.0f} GiB, more than {MOST_BYTES >> 30} GiB")
    for member in members:
        if not member.plain:
            raise _refused(archive, f"its entry '{member.name}' is a link or a device")
        if leads_outside(member.name):
            raise _refused(archive, f"its entry '{member.name}' leads outside the folder")


def leads_outside(name: str) -> bool:
    """Returns whether an entry's path is absolute, on a drive, or goes up; as POSIX or Windows reads it."""
    path, foreign = PurePosixPath(name), PureWindowsPath(name)
    return bool(path.is_absolute() or foreign.drive or foreign.root or ".." in (*path.parts, *foreign.parts))


def _extract(member: _Member, target: Path, archive: Path) -> None:
    """Writes one file; stops where it turns out larger than the archive said."""
    left = member.size
    with disk_faults(target), member.open() as source, target.open("wb") as handle:
        while chunk := source.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _refused(archive, f"its entry '{member.name}' is larger than it says")
            handle.write(chunk)
    if left:
        raise EOFError(f"'{member.name}' lacks {left:,} bytes")


def _refused(archive: Path, why: str) -> DataError:
    return DataError(
        "This archive is not unpacked.", where=f"{archive}: {why}", fix="get it from its publisher"
    )
