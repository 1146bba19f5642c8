"""Says once, from the first measured steps, how long training takes on this device."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.loop.pace import Pace
from effrec_cli.report.figures import significant
from effrec_cli.report.progress import duration
from effrec_cli.schema import Config
from effrec_cli.schema.protocols import monitor_of

_STEPS, _SECONDS = 5, 1.0
"""What is measured before a word: fewer steps, or a shorter time, would say little."""
_LONG_S = 10.0
"""So long nobody is kept waiting, however slow steps are that are alike."""


@dataclass
class Outlook:
    """What a training run may take.

    Attributes:
        config: the run's settings.
        steps_per_epoch: optimizer steps in an epoch.
        device: what is trained on, in words.
        pace: what has been measured.
        cycle: steps after which their cost repeats; a validation may come before.
        told: whether it has been said.
    """

    config: Config
    steps_per_epoch: int
    device: str
    pace: Pace
    cycle: int = 1
    told: bool = False

    def words(self, elapsed_s: float) -> str | None:
        """Returns the sentence the first time that enough is measured, and None before and after.

        Args:
            elapsed_s: seconds of training so far, to which `run.max_minutes` applies.
        """
        step_s, left_s = self.pace.step_s, self.pace.left_s
        if self.told or step_s is None or left_s is None or self.pace.done >= self.pace.total:
            return None
        if not self._enough():
            return None
        self.told = True
        parts = [
            f"{self.steps_per_epoch:,} steps an epoch at {_rate(step_s)} on {self.device}: "
            f"about {_time(step_s * self.steps_per_epoch)} an epoch{self._validation()}",
            f"at most {self._limit(left_s, elapsed_s)}",
            *self._patience(),
        ]
        return "; ".join(parts)

    def _enough(self) -> bool:
        steps, seconds = self.pace.measured
        if self.pace.validated:
            return True
        return steps >= self.cycle and (seconds >= _LONG_S or (steps >= _STEPS and seconds >= _SECONDS))

    def _validation(self) -> str:
        took = self.pace.validation_s
        return " (validation not measured yet)" if took is None else f" and {_time(took)} a validation"

    def _limit(self, left_s: float, elapsed_s: float) -> str:
        """Returns what ends the run at the latest, and when."""
        run = self.config.run
        allowed_s = 60 * run.max_minutes - elapsed_s if run.max_minutes is not None else left_s
        if allowed_s < left_s:
            return f"{_time(max(0.0, allowed_s))} from now, by run.max_minutes={run.max_minutes:g}"
        in_epochs = self.pace.total == run.max_epochs * self.steps_per_epoch
        whole = f"{run.max_epochs:,} epochs" if in_epochs else f"{self.pace.total:,} steps"
        more = " and the validations" if self.pace.validation_s is None else ""
        return f"{whole}, {_time(left_s)} from now{more}"

    def _patience(self) -> list[str]:
        patience = self.config.run.patience
        if patience is None or self.pace.validations_due <= patience:  # which cannot run out then
            return []
        times = "validation" if patience == 1 else "validations"
        return [f"stops earlier after {patience} {times} without a better {monitor_of(self.config)}"]


def _rate(step_s: float) -> str:
    return f"{significant(1 / step_s)} steps/s" if step_s <= 1 else f"{significant(step_s)} s a step"


def _time(seconds: float) -> str:
    if seconds >= 10:
        return duration(seconds)
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
