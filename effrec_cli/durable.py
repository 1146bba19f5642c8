"""Files that are there whole or not at all, and the faults of disks put into words."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effrec_cli.errors import EnvironmentFault

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Advice:
    """What a user can do about a disk that could not be written.

    Attributes:
        full: where it is full.
        closed: where it may not be written.
        other: about any other fault; None lets those pass as they are.
    """

    full: str
    closed: str
    other: str | None = None


RUN_ADVICE = Advice(
    full="free some space on that disk, then `effrec resume` the run",
    closed="name a folder you may write to: run.dir=PATH",
    other="see that the disk is there and sound, then `effrec resume` the run",
)
_LARGER = "raise the limit on the size of files (ulimit -f), or write to a disk that takes larger ones"
DATA_ADVICE = Advice(
    full="free some space on that disk, or choose another: data_root=PATH",
    closed="choose a folder you may write to: data_root=PATH or EFFREC_DATA=PATH",
)


@contextmanager
def writing(path: Path, advice: Advice = RUN_ADVICE) -> Iterator[None]:
    """Turns an OSError raised inside into EnvironmentFault, which says that `path` could not be written."""
    try:
        yield
    except OSError as fault:
        fix = _fix(fault, advice)
        if fix is None:
            raise
        reason = os.strerror(fault.errno) if fault.errno else str(fault)
        what = f"Cannot write {path}: {reason}. What was saved before is intact."
        raise EnvironmentFault(what, where=str(path), fix=fix) from fault


def _fix(fault: OSError, advice: Advice) -> str | None:
    if fault.errno == errno.EFBIG:  # however much space is free
        return _LARGER
    if fault.errno in _FULL:
        return advice.full
    return advice.closed if fault.errno in _CLOSED else advice.other


def write_bytes(path: Path, data: bytes, advice: Advice = RUN_ADVICE) -> None:
    """Puts `data` at `path` in one move: a reader, or a crash, sees the old file or the new one.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; the old file is untouched.
    """
    draft = path.with_name(f".writing-{path.name}")
    with writing(path, advice):
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


def write_json(path: Path, content: Any, advice: Advice = RUN_ADVICE) -> None:
    """Puts `content` at `path` as JSON, in one move; raises as `write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(), advice)


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
