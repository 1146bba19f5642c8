"""One rank of a data-parallel run: `python -m effrec_cli.worker FOLDER DEVICE`, started by `launch`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from effrec_cli.errors import EffrecError
from effrec_cli.parent import stop_with_launcher

if TYPE_CHECKING:
    from effrec_cli.distributed import World


def main(arguments: list[str], work: Callable[[Path, World], object] | None = None) -> int:
    """Runs this rank's part; returns the exit code. The launching process tells the user what went wrong.

    Args:
        arguments: the run's folder and the device.
        work: what to do in the joined world; `run.run_rank` by default.
    """
    folder, device = arguments
    stop_with_launcher()  # before torch is imported, which takes seconds
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the launcher makes it a SIGTERM
    from effrec_cli import distributed, launch
    from effrec_cli.loop import interrupt

    rank = int(os.environ.get("RANK", "0"))
    try:
        # SIGTERM still ends the process on the spot: joining waits for the others outside of Python, where a
        # handler would never run, and there is nothing yet to save.
        world = distributed.join(device)
        with interrupt.listening():
            (work or _train())(Path(folder), world)
            world.leave()
    except Exception as error:
        launch.report(error, rank)
        return error.exit_code if isinstance(error, EffrecError) else 1
    return 0


def _train() -> Callable[[Path, World], object]:
    from effrec_cli.run import run_rank

    return run_rank


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
