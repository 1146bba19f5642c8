"""Files that are there whole or not at all, and the faults of disks put into words."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from effrec_cli.errors import EnvironmentFault

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError raised inside into EnvironmentFault, which says that `path` could not be written."""
    try:
        yield
    except OSError as fault:
        raise cannot_write(path, fault) from fault


def cannot_write(path: Path, fault: OSError) -> EnvironmentFault:
    """Returns the error for a file or folder that could not be written."""
    reason = os.strerror(fault.errno) if fault.errno else str(fault)
    return EnvironmentFault(
        f"Cannot write {path}: {reason}. What was saved before is intact.",
        where=str(path),
        fix=_advice(fault),
    )


def _advice(fault: OSError) -> str:
    if fault.errno in _FULL:
        return "free some space on that disk, then `effrec resume` the run"
    if fault.errno in _CLOSED:
        return "name a folder you may write to: run.dir=PATH"
    return "see that the disk is there and sound, then `effrec resume` the run"


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` in one move: a reader, or a crash, sees the old file or the new one.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; the old file is untouched.
    """
    draft = path.with_name(f".writing-{path.name}")
    with writing(path):
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Puts `content` at `path` as JSON, in one move; raises as `write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def sync_file(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Waits until the folder's entries (new names, renames) are on the disk."""
    sync_file(path)
