"""Runs command lines, each in a forked child, so that many cost one import of torch; some are broken off.

As a script it reads `[{"argv": [...], "fault": {"signal": "SIGKILL", "step": 7}}, ...]` from stdin and prints
the exit codes. The signal comes in a step of method gram, as its filter is about to run for that time since
the process began.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from unittest import mock

import torch

import effrec_cli.run
from effrec_cli.app import main
from effrec_cli.methods.content import tracing
from effrec_cli.methods.content.modes import Mode
from effrec_cli.methods.gram import GRAM

IMPORTED_ONCE = (effrec_cli.run, tracing, GRAM)


def breaking(fault):
    """Returns a context in which the signal comes after vectors are there and before the filter has them."""
    if not fault:
        return contextlib.nullcontext()
    loss, seen = Mode.loss, []

    def counted(*args, **kwargs):
        seen.append(1)
        if len(seen) == fault["step"]:
            os.kill(os.getpid(), getattr(signal, fault["signal"]))
        return loss(*args, **kwargs)

    return mock.patch.object(Mode, "loss", counted)


def exit_code(story):
    """Runs one command line in a forked child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with breaking(story.get("fault")):
                code = main(story["argv"])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.optim.Adam(torch.nn.Linear(1, 1).parameters())  # imports a lot, once
    said = os.dup(1)
    os.dup2(2, 1)  # what commands print is not the answer
    codes = [exit_code(story) for story in json.load(sys.stdin)]
    os.write(said, json.dumps(codes).encode())
