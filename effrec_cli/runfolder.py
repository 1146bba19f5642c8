"""A run's folder: who may write to it, what state it is in, and its small files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effrec_cli.durable import sync_file, write_json, writing
from effrec_cli.errors import ConfigError, DataError, EffrecError, EnvironmentFault, Interrupted
from effrec_cli.lock import FolderLock, is_locked

RUNNING, DONE, FAILED, INTERRUPTED, KILLED, STARTING = (
    "running",
    "done",
    "failed",
    "interrupted",
    "killed",
    "starting",
)

_BEFORE_TRAINING = {".lock", "config.yaml", "overrides.yaml", "env.json", "status.json", "log.txt"}
"""What a run has written before it reaches anything that is worth keeping."""

_LOGS = (".out", ".err", ".log", ".txt")
"""Endings of what a shell or a cluster may have begun to write beside a run before the run began."""
_NAMED = 3


class RunFolder:
    """One run's folder. Nothing is touched before `open`.

    Args:
        path: the folder; it need not exist.

    Attributes:
        path: the folder.
        checkpoints: where `checkpoint.save` writes.
        model_path: the trained model.
        made: whether the folder was made for this run, and was not there before.
        previous: the state the run was in before `open`, or None for a new run.
        metrics_lines: whole lines in metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.model_path = self.path / "model.safetensors"
        self.made = False
        self.previous: str | None = None
        self.metrics_lines = 0
        self._metrics = self.path / "metrics.jsonl"
        self._lock = FolderLock(self.path)
        self._status: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether the run in the folder was done when it was opened."""
        return self.previous == DONE

    def open(self, *, resume: str = "never") -> RunFolder:
        """Makes the folder, or reopens the one there, and keeps every other process out of it.

        A finished run is opened but left as it is. A run whose status says `running` although nobody holds
        its lock was killed.

        Args:
            resume: `never` refuses a folder that holds a run; `auto` goes on with it.

        Raises:
            ConfigError: another process uses the folder, it holds a run and `resume` is `never`, or it
                holds other things.
            EnvironmentFault: the folder cannot be made or written.
        """
        refuse_taken(self.path, resume)
        self._make()
        with writing(self.path):
            self._lock.take()
        try:
            self._look_inside(resume)
            if not self.finished:
                self._sweep()
                self.status(RUNNING, step=self._status.get("step"))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Lets other processes use the folder."""
        self._lock.release()

    def hand_over(self) -> None:
        """Lets go of the folder for the ranks that are about to be started."""
        self.status(STARTING)
        self.close()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Writes into status.json how what runs inside ends: done, failed or interrupted, and why."""
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            if isinstance(error, Interrupted):
                error.fix = f"effrec resume {self.path}"
            with contextlib.suppress(EnvironmentFault):  # the first fault is the one to report
                self.status(INTERRUPTED if stopped else FAILED, reason=_reason(error))
            raise
        self.status(DONE)

    @contextmanager
    def tidied(self) -> Iterator[None]:
        """Leaves no folder behind where what runs inside was given bad input and had reached nothing yet.

        The error on the screen is all there is to know of such a run. A folder that was there before stays.
        """
        try:
            yield
        except (ConfigError, DataError):
            if self.made and {path.name for path in self.path.iterdir()} <= _BEFORE_TRAINING:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def status(self, state: str, *, step: int | None = None, reason: str | None = None) -> None:
        """Writes status.json; without `step` the last one known stays."""
        step = self._status.get("step") if step is None else step
        self._status = {"state": state, "step": step, "reason": reason, "pid": os.getpid(), "time": _now()}
        self.write_json("status.json", self._status)

    def write_json(self, name: str, content: Any) -> None:
        """Puts `content` into the file `name`, in one move."""
        write_json(self.path / name, content)

    def read_json(self, name: str) -> Any:
        """Returns what the file `name` holds, or None where it is missing or unreadable."""
        return _read_json(self.path / name)

    def log(self, text: str) -> None:
        """Adds a line to log.txt, with the time."""
        path = self.path / "log.txt"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {text}\n")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds one record to metrics.jsonl."""
        with writing(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.metrics_lines += 1

    def sync_metrics(self) -> None:
        """Waits until metrics.jsonl is on the disk, so that a checkpoint may count on its lines."""
        with writing(self._metrics):
            if self._metrics.exists():
                sync_file(self._metrics)

    def cut_metrics(self, lines: int) -> None:
        """Keeps the first `lines` lines of metrics.jsonl; what came later will be written again."""
        with writing(self._metrics):
            whole = _whole_lines(self._metrics)[:lines]
            if self._metrics.exists():
                os.truncate(self._metrics, sum(map(len, whole)))
                sync_file(self._metrics)
        self.metrics_lines = len(whole)

    def _make(self) -> None:
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
                self.made = True
        except (FileExistsError, NotADirectoryError) as fault:
            raise ConfigError(
                "The run folder's path is a file.", where=str(self.path), fix="run.dir=PATH"
            ) from fault
        except OSError as fault:
            with writing(self.path):
                raise fault

    def _look_inside(self, resume: str) -> None:
        """Takes note of the run that is there already."""
        self._status = self.read_json("status.json") or {}
        self.previous = read_state(self.path, locked=False)
        if self.previous is not None and resume == "never":
            raise _holds_a_run(self.path, self.previous)
        self.metrics_lines = len(_whole_lines(self._metrics))
        if self.previous == KILLED:
            self.log(
                f"the process before ended without a word (step {self._status.get('step')}): it was killed"
            )

    def _sweep(self) -> None:
        """Removes drafts that a killed process left behind."""
        for draft in self.path.glob(".writing-*"):
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


def read_state(folder: Path, *, locked: bool | None = None) -> str | None:
    """Returns the state of the run in `folder`, or None where there is no run.

    Args:
        folder: a run's folder.
        locked: whether a living process holds it; None looks.
    """
    status = _read_json(folder / "status.json")
    if not isinstance(status, dict) or "state" not in status:
        return KILLED if (folder / "config.yaml").exists() else None
    alive = is_locked(folder) if locked is None else locked
    return KILLED if status["state"] == RUNNING and not alive else str(status["state"])


def refuse_taken(folder: Path, resume: str) -> None:
    """Raises where a run may not go into `folder`; does nothing for one that is empty or not there.

    Args:
        folder: where the run is to go.
        resume: `never` refuses a folder that holds a run; `auto` would go on with it.

    Raises:
        ConfigError: a living process uses it, it holds a run, or files of something else, among which a
            run's own would be lost.
    """
    if not folder.is_dir():
        return
    if is_locked(folder):
        raise FolderLock(folder).refusal()
    state = read_state(folder, locked=False)
    if state is None:
        _refuse_other_files(folder)
    elif resume == "never":
        raise _holds_a_run(folder, state)


def _holds_a_run(folder: Path, state: str) -> ConfigError:
    return ConfigError(
        f"This folder holds a run already ({state}).",
        where=str(folder),
        fix=f"name another folder (run.dir=PATH), or go on with this run: effrec resume {folder}",
    )


def _refuse_other_files(folder: Path) -> None:
    found = sorted(path.name for path in folder.iterdir() if path.name[0] != "." and path.suffix not in _LOGS)
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ConfigError(
            "This folder holds files that are no run's.",
            where=f"{folder}: {', '.join(found[:_NAMED])}{more}",
            fix=f"name a folder of its own: run.dir={folder / 'NAME'}",
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _whole_lines(path: Path) -> list[bytes]:
    """Returns the lines that end in a newline; a killed process can leave a piece of one behind."""
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _reason(error: BaseException) -> str:
    if isinstance(error, EffrecError):
        return error.what
    return f"{type(error).__name__}: {error}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
