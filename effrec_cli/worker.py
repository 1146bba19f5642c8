"""One rank of a data-parallel run: `python -m effrec_cli.worker FOLDER DEVICE`, started by `launch`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from effrec_cli import distributed, launch
from effrec_cli.distributed import World
from effrec_cli.errors import EffrecError
from effrec_cli.loop import interrupt

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str], work: Callable[[Path, World], object] | None = None) -> int:
    """Runs this rank's part; returns the exit code. The launching process tells the user what went wrong.

    Args:
        arguments: the run's folder and the device.
        work: what to do in the joined world; `run.run_rank` by default.
    """
    folder, device = arguments
    stop_with_parent()
    rank = int(os.environ.get("RANK", "0"))
    try:
        with interrupt.listening():
            world = distributed.join(device)
            (work or _train())(Path(folder), world)
            world.leave()
    except Exception as error:
        launch.report(error, rank)
        return error.exit_code if isinstance(error, EffrecError) else 1
    return 0


def _train() -> Callable[[Path, World], object]:
    from effrec_cli.run import run_rank

    return run_rank


def stop_with_parent() -> None:
    """Asks Linux to send SIGTERM here when the launching process dies, even if it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
