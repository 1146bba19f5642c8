"""A job of a sweep in a process of its own: `python -m effrec_cli.jobprocess OUTCOMES`, the task on stdin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from effrec_cli import failures
from effrec_cli.errors import EffrecError, EnvironmentFault, Interrupted, OutOfMemoryError
from effrec_cli.loop.interrupt import held
from effrec_cli.outcomes import INTERRUPTED, Outcome, Task
from effrec_cli.schema import check

MODULE = "effrec_cli.jobprocess"
KEYBOARD = 130
# What reaches the sweep goes to the job once, whoever else the terminal tells.
_PASSED_ON = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGTERM}


def perform_apart(task: Task, outcomes: Path) -> Outcome:
    """Runs the task in a new process and returns its outcome, which is also kept in `outcomes`.

    A signal to this process is passed on; the job saves itself and ends as interrupted.
    """
    with _Child(outcomes) as child:
        code = child.run(json.dumps(asdict(task)))
    kept = Outcome.read(outcomes, task.number)
    if kept is None:
        kept = _outcome_of_death(task, code)
        kept.write(outcomes)
    return kept


def perform(task: Task, outcomes: Path) -> Outcome:
    """Runs the task in this process and returns its outcome, which is also kept in `outcomes`."""
    try:
        with held():
            from effrec_cli.run import run

        metrics = run(check.build(task.settings), task.overrides, keep_failed=True).metrics
        outcome = Outcome.done(task, metrics)
    except KeyboardInterrupt:
        outcome = Outcome.of(task, INTERRUPTED, KEYBOARD)
    except Interrupted as error:
        outcome = Outcome.of(task, INTERRUPTED, failures.report(error), error=error.what)
    except Exception as error:
        outcome = Outcome.failed(task, error, failures.report(error))
    outcome.write(outcomes)
    return outcome


class _Child:
    """The process of one job, in a process group of its own: a terminal's Ctrl-C comes by us alone."""

    def __init__(self, outcomes: Path) -> None:
        # Only where this process looks for modules in the current folder may the new one do so.
        here = "" in sys.path or str(Path.cwd()) in sys.path
        self.command = [sys.executable, *([] if here else ["-P"]), "-m", MODULE, str(outcomes)]
        self.process: subprocess.Popen[str] | None = None
        self.early: list[int] = []

    def __enter__(self) -> _Child:
        listens = threading.current_thread() is threading.main_thread()
        numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)] if listens else []
        self._before = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self.process is None:
            self.early.append(number)
        else:
            self.process.send_signal(_PASSED_ON[signal.Signals(number).name])

    def run(self, task: str) -> int:
        """Starts the process, hands it the task, waits, and returns its exit code."""
        group = 0 if os.name == "posix" else None
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, text=True, process_group=group)
        for number in self.early:
            self._pass_on(number, None)
        self.process.communicate(task)
        return self.process.returncode


def _outcome_of_death(task: Task, code: int) -> Outcome:
    """Returns the outcome of a job that left none: it was told to stop too early to say so, or was killed."""
    if code == KEYBOARD or -code in (signal.SIGTERM, signal.SIGINT):
        return Outcome.of(task, INTERRUPTED, Interrupted.exit_code, error="stopped before it began")
    error: EffrecError = EnvironmentFault(f"The job's process ended with code {code}.")
    if code == -signal.SIGKILL:
        error = OutOfMemoryError("The job was killed, as a system out of memory does.", fix="effrec validate")
    return Outcome.failed(task, error, failures.report(error))


def main(arguments: list[str]) -> int:
    """Performs the task on stdin; the exit code is that of a run."""
    from effrec_cli.parent import stop_with_parent

    stop_with_parent()
    task = Task(**json.load(sys.stdin))
    return perform(task, Path(arguments[0])).exit_code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(KEYBOARD)
