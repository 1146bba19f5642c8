"""Locks that die with the process holding them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from effrec_cli.errors import ConfigError

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
_TAKEN = {errno.EAGAIN, errno.EACCES}
_held: set[int] = set()


class FileLock:
    """An exclusive flock on a file, which names the holder for those who do not get it.

    The kernel lets go of a flock when its process ends, however it ends, so no lock is ever stale. The file
    itself stays: removing it would let two processes hold two locks of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def take(self, waiting: Callable[[str], None] | None = None) -> None:
        """Takes the lock.

        Args:
            waiting: told who holds it, where another process does, before waiting for that to end; None
                refuses instead.

        Raises:
            ConfigError: another process holds it, and nobody wants to wait.
        """
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if waiting is None:
                    raise self.refusal()
                waiting(self._holder())
                _flock(handle, fcntl.LOCK_EX)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        _held.add(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    def release(self) -> None:
        """Lets others take the lock; does nothing where it is not held."""
        if self._handle is not None:
            _held.discard(self._handle)
            os.close(self._handle)
            self._handle = None

    def refusal(self) -> ConfigError:
        """Returns the error for whom the lock is not to be had."""
        return ConfigError(
            f"Another run is using this folder: {self._holder()}.",
            where=str(self.path.parent),
            fix="wait for it to end, stop it, or name another folder: run.dir=PATH",
        )

    def _holder(self) -> str:
        holder = {}
        with contextlib.suppress(OSError, ValueError):
            holder = json.loads(self.path.read_text())
        return f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"


class FolderLock(FileLock):
    """The lock of a run's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / ".lock")


def is_locked(folder: Path) -> bool:
    """Returns whether a living process holds the lock of `folder`."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(handle)


def _flock(handle: int, how: int) -> bool:
    """Returns whether the lock is had; on a file system without locks everyone has it."""
    try:
        fcntl.flock(handle, how)
    except OSError as fault:
        if fault.errno not in _UNSUPPORTED | _TAKEN:
            raise
        return fault.errno not in _TAKEN
    return True


def _forget_in_child() -> None:
    """Closes the locks a forked child inherited, which would otherwise outlive the run."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
