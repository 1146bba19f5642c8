"""What Hydra calls for a single run and for each job of a sweep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from effrec_cli import failures, jobprocess
from effrec_cli.compose import checked
from effrec_cli.early import refuse_early
from effrec_cli.loop.interrupt import held
from effrec_cli.outcomes import INTERRUPTED, Outcome, Task

if TYPE_CHECKING:
    from omegaconf import DictConfig


class SweepStopped(BaseException):
    """Ends a whole sweep; not an `Exception`, so that Hydra does not go on to the next job.

    Args:
        exit_code: of the job that was interrupted.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


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
            config = checked(composed)
            refuse_early(config, _experiment())
            with held():
                from effrec_cli.run import run

            run(config, _overrides())
        except Exception as error:
            self.error = error


class SweepJob:
    """The task function of a sweep's jobs; may be pickled and called in another process.

    Each job runs in a process of its own, as a run started by hand does: what one leaves warm, or breaks,
    shows in no other's time and memory.

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
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        number, made = int(hydra.job.num), Path(hydra.runtime.output_dir)
        print(f"[{number}] {' '.join(_overrides())}", flush=True)
        try:
            config = checked(composed)
        except Exception as error:
            Outcome.failed(Task(number, _overrides(), str(made)), error, failures.report(error)).write(
                self.outcomes
            )
            return math.nan
        config.run.dir = config.run.dir or str(made)
        outcome = jobprocess.perform_apart(Task.of(number, _overrides(), config), self.outcomes)
        if made.is_dir() and not any(made.iterdir()):
            made.rmdir()  # Hydra made it, and the run went elsewhere
        if outcome.status == INTERRUPTED:
            raise SweepStopped(outcome.exit_code)
        return math.nan if outcome.valid is None else outcome.valid


def _experiment() -> str | None:
    """Returns the name of the experiment that was chosen."""
    from hydra.core.hydra_config import HydraConfig

    name = HydraConfig.get().runtime.choices.get("experiment")
    return str(name) if name else None


def _overrides() -> list[str]:
    """Returns this job's overrides as given, without Hydra's own."""
    from hydra.core.hydra_config import HydraConfig

    return [str(each) for each in HydraConfig.get().overrides.task]
