"""What Hydra calls for each job: checks the settings, runs, and keeps what came of it."""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import failures
from effrec_cli.compose import checked
from effrec_cli.errors import Interrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from effrec_cli.schema import Config

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"


class SweepStopped(BaseException):
    """Ends a whole sweep; not an `Exception`, so that Hydra does not go on to the next job."""


@dataclass(frozen=True)
class Outcome:
    """What came of one job of a sweep.

    Attributes:
        number: of the job, from 0.
        overrides: its settings as given.
        folder: its run folder.
        status: `done`, `failed` or `interrupted`.
        exit_code: 0, or that of the error.
        seconds: it took.
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

    def write(self, folder: Path) -> None:
        """Keeps the outcome in `folder`, one file a job."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.number}.json").write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def read_all(folder: Path) -> list[Outcome]:
        """Returns the outcomes kept in `folder`, by job number."""
        found = [Outcome(**json.loads(path.read_text())) for path in folder.glob("*.json")]
        return sorted(found, key=lambda outcome: outcome.number)


class Job:
    """The task function of a single run: never raises, so that Hydra adds nothing to the error's text.

    Attributes:
        error: what stopped the run, if anything did.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, composed: DictConfig) -> None:
        """Checks and runs the composed settings."""
        try:
            _run(checked(composed), _overrides())
        except Exception as error:
            self.error = error


class SweepJob:
    """The task function of a sweep's jobs; may be pickled and called in another process.

    Args:
        outcomes: folder for the outcomes.
    """

    def __init__(self, outcomes: Path) -> None:
        self.outcomes = outcomes

    def __call__(self, composed: DictConfig) -> float:
        """Runs one job and keeps its outcome.

        Returns:
            the best validation score, NaN for a failed job: what a sweeper that searches maximises.

        Raises:
            SweepStopped: the job was interrupted.
        """
        attempt = _Attempt()
        try:
            return attempt.run(composed)
        except KeyboardInterrupt as error:
            attempt.stopped(error)
            raise
        except Interrupted as error:
            failures.report(error)
            attempt.stopped(error, error.exit_code)
            raise SweepStopped from error
        except Exception as error:
            attempt.failed(error, failures.report(error))
            return math.nan
        finally:
            attempt.close(self.outcomes)
            _free_memory()


class _Attempt:
    """One job on its way to an outcome."""

    def __init__(self) -> None:
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        self.overrides = _overrides()
        self.started = time.monotonic()
        self.made = Path(hydra.runtime.output_dir)
        self.folder = str(self.made)
        self.number = int(hydra.job.num)
        self.metric = ""
        self.outcome = self._outcome(INTERRUPTED, 130)

    def run(self, composed: DictConfig) -> float:
        """Runs the job in the folder the sweep gives it, and returns its best validation score."""
        config = checked(composed)
        config.run.dir = self.folder = config.run.dir or self.folder
        self.metric = config.evaluation.monitor
        print(f"[{self.number}] {' '.join(self.overrides)}", flush=True)
        result = _run(config, self.overrides)
        valid, test = (result.metrics.get(part, {}).get(self.metric) for part in ("valid", "test"))
        self.outcome = self._outcome(DONE, 0, valid=valid, test=test)
        return math.nan if valid is None else float(valid)

    def failed(self, error: Exception, exit_code: int) -> None:
        """Notes that the job ended with an error."""
        line = str(failures.as_effrec(error)).splitlines()[0]
        self.outcome = self._outcome(FAILED, exit_code, error=line)

    def stopped(self, error: BaseException, exit_code: int = 130) -> None:
        """Notes that the job was told to stop."""
        self.outcome = self._outcome(INTERRUPTED, exit_code, error=str(error).partition("\n")[0] or None)

    def close(self, outcomes: Path) -> None:
        """Keeps the outcome, and takes Hydra's folder away if the run went elsewhere."""
        self.outcome.write(outcomes)
        if self.made.is_dir() and not any(self.made.iterdir()):
            self.made.rmdir()

    def _outcome(self, status: str, exit_code: int, **more: Any) -> Outcome:
        seconds = time.monotonic() - self.started
        return Outcome(
            self.number, self.overrides, self.folder, status, exit_code, seconds, self.metric, **more
        )


def _run(config: Config, overrides: list[str]) -> Any:
    from effrec_cli.run import run

    return run(config, overrides)


def _overrides() -> list[str]:
    """Returns this job's overrides as given, without Hydra's own."""
    from hydra.core.hydra_config import HydraConfig

    return [str(each) for each in HydraConfig.get().overrides.task]


def _free_memory() -> None:
    """Gives a finished job's memory back, so that the next is not measured with it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
