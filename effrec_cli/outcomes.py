"""What a job of a sweep is to do, and what came of it: one small JSON file each."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import failures
from effrec_cli.compose import resolved
from effrec_cli.schema.protocols import monitor_of

if TYPE_CHECKING:
    from effrec_cli.schema import Config

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"


@dataclass(frozen=True)
class Task:
    """One job.

    Attributes:
        number: of the job, from 0.
        overrides: its settings as given.
        folder: its run folder.
        metric: name of the monitored metric.
        settings: its checked settings, as plain values.
        started: seconds of the system's clock.
    """

    number: int
    overrides: list[str]
    folder: str
    metric: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    @classmethod
    def of(cls, number: int, overrides: list[str], config: Config) -> Task:
        """Returns the task of running `config`, whose `run.dir` is set."""
        return cls(number, overrides, str(config.run.dir), monitor_of(config), resolved(config))


@dataclass(frozen=True)
class Outcome:
    """What came of one job.

    Attributes:
        number: of the job, from 0.
        overrides: its settings as given.
        folder: its run folder.
        status: `done`, `failed` or `interrupted`.
        exit_code: 0, or that of the error.
        seconds: it took, start of the process included.
        metric: name of the monitored metric.
        valid: its best value on the validation cases, or None.
        test: its value on the test cases, or None.
        error: the error's first line, or None.
    """

    number: int
    overrides: list[str]
    folder: str
    status: str
    exit_code: int
    seconds: float
    metric: str = ""
    valid: float | None = None
    test: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, task: Task, status: str, exit_code: int, **more: Any) -> Outcome:
        """Returns the outcome of a task that ends now."""
        seconds = time.time() - task.started
        return cls(task.number, task.overrides, task.folder, status, exit_code, seconds, task.metric, **more)

    @classmethod
    def done(cls, task: Task, metrics: dict[str, dict[str, float]]) -> Outcome:
        """Returns the outcome of a run that ended with these metrics."""
        valid, test = (metrics.get(part, {}).get(task.metric) for part in ("valid", "test"))
        return cls.of(task, DONE, 0, valid=valid, test=test)

    @classmethod
    def failed(cls, task: Task, error: Exception, exit_code: int) -> Outcome:
        """Returns the outcome of a task that ended with an error."""
        line = str(failures.as_effrec(error)).partition("\n")[0]
        return cls.of(task, FAILED, exit_code, error=line)

    def write(self, folder: Path) -> None:
        """Keeps the outcome in `folder`."""
        draft = folder / f".{self.number}.draft"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.rename(folder / f"{self.number}.json")

    @staticmethod
    def read(folder: Path, number: int) -> Outcome | None:
        """Returns the outcome of one job, or None where it left none."""
        path = folder / f"{number}.json"
        return Outcome(**json.loads(path.read_text())) if path.is_file() else None

    @staticmethod
    def read_all(folder: Path) -> list[Outcome]:
        """Returns the outcomes kept in `folder`, by job number."""
        found = [Outcome(**json.loads(path.read_text())) for path in folder.glob("[0-9]*.json")]
        return sorted(found, key=lambda outcome: outcome.number)
