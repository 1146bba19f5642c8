"""Times on a CPU with memory as training has it: what is freed stays with the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

# Of glibc's malloc.h, and the most that it takes.
_TRIM, _MMAP = -1, -3
_LARGEST = 32 << 20
_SET = {_MMAP: "MALLOC_MMAP_THRESHOLD_", _TRIM: "MALLOC_TRIM_THRESHOLD_"}


@contextlib.contextmanager
def kept_blocks() -> Iterator[None]:
    """Lets freed blocks stay with the process inside, in a peer's process that is told to give them back.

    A peer gives blocks back at once, so that its memory shows; each tensor is then paged in anew, which
    takes longer than packed scores. Outside glibc, or where nothing was told, nothing changes.
    """
    told = {option: int(os.environ[name]) for option, name in _SET.items() if name in os.environ}
    libc = _glibc() if told else None
    if libc is None:
        yield
        return
    for option in told:
        libc.mallopt(option, _LARGEST)
    try:
        yield
    finally:
        for option, value in told.items():
            libc.mallopt(option, value)
        give_back()


def give_back() -> None:
    """Gives all that is freed back to the system, where glibc lets it, so that using it again shows."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    with contextlib.suppress(OSError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
            return libc
    return None
