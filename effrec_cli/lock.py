"""A lock on a folder that dies with the process holding it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from pathlib import Path

from effrec_cli.errors import ConfigError

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
_TAKEN = {errno.EAGAIN, errno.EACCES}
_held: set[int] = set()


class FolderLock:
    """An exclusive flock on `folder/.lock`; the file names the holder for those who are refused.

    The kernel lets go of a flock when its process ends, however it ends, so no lock is ever stale.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._handle: int | None = None

    def take(self) -> None:
        """Takes the lock.

        Raises:
            ConfigError: another process holds it; the message names its pid and host.
        """
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            if fault.errno not in _UNSUPPORTED:
                os.close(handle)
                raise (self._refusal() if fault.errno in _TAKEN else fault) from fault
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

    def _refusal(self) -> ConfigError:
        holder = {}
        with contextlib.suppress(OSError, ValueError):
            holder = json.loads(self.path.read_text())
        who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
        return ConfigError(
            f"Another run is using this folder: {who}.",
            where=str(self.path.parent),
            fix="wait for it to end, stop it, or name another folder: run.dir=PATH",
        )


def is_locked(folder: Path) -> bool:
    """Returns whether a living process holds the lock of `folder`."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as fault:
        return fault.errno in _TAKEN
    finally:
        os.close(handle)
    return False


def _forget_in_child() -> None:
    """Closes the locks a forked child inherited, which would otherwise outlive the run."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
