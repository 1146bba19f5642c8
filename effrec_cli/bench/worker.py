"""A peer's process: makes its inputs, then does the work each time it is asked."""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

import torch

from effrec_cli.bench import suites
from effrec_cli.bench.suites import Cell

# Freed blocks go back to the system at once, or resident memory would not show what a repeat needed.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}

PREPARE, WORK, STOP = "prepare", "work", "stop"


class Failed(Exception):
    """A peer could not do its work; the message says why."""


class Worker:
    """One peer of one cell, in a process of its own, started at once and idle until asked.

    Args:
        suite: name of the suite.
        cell: the work.
        peer: who does it.
        device: where.
    """

    def __init__(self, suite: str, cell: Cell, peer: str, device: torch.device) -> None:
        self.peer, self._timeout_s = peer, cell.timeout_s
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, suite, cell, peer, str(device)), daemon=False
        )
        with _environment(_ALLOCATOR):
            self._process.start()
        theirs.close()

    def prepare(self) -> None:
        """Lets the process make its inputs.

        Raises:
            Failed: it could not.
        """
        self._ask(PREPARE)

    def work(self) -> dict[str, float]:
        """Lets the process do the work once and returns the figures.

        Raises:
            Failed: it could not.
        """
        return self._ask(WORK)

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(STOP)
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._pipe.close()

    def _ask(self, what: str) -> Any:
        try:
            self._pipe.send(what)
            if not self._pipe.poll(self._timeout_s):
                raise Failed(f"took longer than {self._timeout_s:.0f} s")
            answer, error = self._pipe.recv()
        except (EOFError, OSError) as gone:
            raise Failed("its process died") from gone
        if error is not None:
            raise Failed(error)
        return answer


def _serve(pipe: Connection, suite: str, cell: Cell, peer: str, device: str) -> None:
    """Runs in the peer's process: answers each request with (figures, None) or (None, error)."""
    trial: suites.Trial | None = None
    unheard = io.StringIO()
    with (
        contextlib.redirect_stdout(unheard),
        contextlib.redirect_stderr(unheard),
        contextlib.suppress(EOFError, KeyboardInterrupt),
    ):
        while (request := pipe.recv()) != STOP:
            try:
                if trial is None or request == PREPARE:
                    trial = suites.module(suite).trial(cell, peer, torch.device(device))
                    pipe.send(({}, None))
                else:
                    pipe.send((trial(), None))
            except Exception as error:
                pipe.send((None, _brief(error)))
            _release()


def _release() -> None:
    """Gives back what the work held but does not need, for the peers that take turns."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _brief(error: Exception) -> str:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return "out of memory"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Any:
    """Sets variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
