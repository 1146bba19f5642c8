"""Ends a process with the one that started it. Light, so that it comes before slow imports."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LAUNCHER = "EFFREC_LAUNCHER"
"""Environment variable with the process id of what launches ranks."""

_PR_SET_PDEATHSIG = 1


def stop_with_parent(parent: int | None = None) -> None:
    """Asks Linux to send SIGTERM here when the process that started this one dies, even if it is killed.

    Args:
        parent: its id, where it is known.

    Raises:
        SystemExit: as of SIGTERM; it has died already, and no signal will ever come.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def stop_with_launcher() -> None:
    """Does so for a rank that `launch` started."""
    launcher = os.environ.get(LAUNCHER)
    stop_with_parent(None if launcher is None else int(launcher))
