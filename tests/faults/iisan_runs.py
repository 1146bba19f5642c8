"""Runs command lines, each in a forked child, so that many cost one import of torch; some are broken off.

As a script it reads `[{"argv": [...], "fault": {"signal": "SIGKILL", "step": 7}}, ...]` from stdin and prints
the exit codes. The signal comes as the loss of a step, or with `read` in place of `step` what is kept of some
items, is about to be computed for that time since the process began.
"""

import json
import os
import signal
import sys
from unittest import mock

import torch
from gram_runs import exit_code

import effrec_cli.run
from effrec_cli.data.features import build
from effrec_cli.methods.content import next_item
from effrec_cli.methods.content.modes import Mode
from effrec_cli.methods.iisan import IISAN
from effrec_cli.models.encoders.sources import ItemReader

IMPORTED_ONCE = (effrec_cli.run, next_item, IISAN)
PLACES = {"step": (Mode, "loss"), "read": (ItemReader, "read")}


def breaking(fault):
    """Returns a context in which the signal comes as the fault says."""
    if not fault:
        return mock.patch.object(build, "MARK_SECONDS", 0.0)
    (name,) = fault.keys() & PLACES.keys()
    owner, method = PLACES[name]
    plain, seen = getattr(owner, method), []

    def counted(*args, **kwargs):
        seen.append(1)
        if len(seen) == fault[name]:
            os.kill(os.getpid(), getattr(signal, fault["signal"]))
        return plain(*args, **kwargs)

    build.MARK_SECONDS = 0.0  # this process is a child of its own
    return mock.patch.object(owner, method, counted)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.optim.Adam(torch.nn.Linear(1, 1).parameters())  # imports a lot, once
    said = os.dup(1)
    os.dup2(2, 1)  # what commands print is not the answer
    with mock.patch("gram_runs.breaking", breaking):
        codes = [exit_code(story) for story in json.load(sys.stdin)]
    os.write(said, json.dumps(codes).encode())
