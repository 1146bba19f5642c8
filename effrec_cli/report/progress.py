"""Says how training goes: one line that renews itself on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from effrec_cli.loop.pace import Pace

REFRESH_S = 0.2
PLAIN_EVERY_S = 10.0


class Progress:
    """Progress of one run: epoch, step, rate, loss, best metric, time left.

    Args:
        total: steps the run may take.
        enabled: whether to say anything; ranks above 0 do not.
        stream: where to; stderr by default, so that results on stdout stay clean.
        clock: seconds from any fixed moment.

    Attributes:
        pace: how fast it goes; whoever trains tells it which steps are done.
    """

    def __init__(
        self,
        total: int,
        enabled: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.enabled = total, enabled
        self._clock = clock
        self.pace = Pace(clock)
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._live = enabled and self._console.is_terminal
        self._bar: Bar | None = None
        self._loss: float | None = None
        self._best: tuple[str, float] | None = None
        self._done = 0
        self._epoch = 1
        self._samples_per_step = 0.0
        self._shown = 0.0

    def start(
        self, done: int, total: int, samples_per_step: float, between: int = 0, *, due: bool = False
    ) -> None:
        """Begins.

        Args:
            done: steps done before.
            total: steps there will be at most.
            samples_per_step: on average.
            between: steps between two validations; 0 says nothing of validations.
            due: whether there is a validation before the first step.
        """
        self._done = done
        self.total, self._samples_per_step = total, samples_per_step
        self.pace.start(done, total, between, due=due)
        self._shown = self._clock()
        if self._live:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bar.add_task("training", total=total, completed=done, text="")
            self._bar.start()

    def step(self, done: int, epoch: int) -> None:
        """Takes note of a step; draws at most every fifth of a second, writes at most every ten."""
        self._done, self._epoch = done, epoch
        if not self.enabled or self._clock() - self._shown < (REFRESH_S if self._live else PLAIN_EVERY_S):
            return
        if self._bar is None:
            self._plain(self._text())
        self._draw()

    def loss(self, value: float) -> None:
        """Takes note of the newest mean loss."""
        self._loss = value

    def validated(self, name: str, value: float, best: float) -> None:
        """Says the monitored metric of a validation, and the best one so far."""
        self._best = (name, best)
        if not self.enabled:
            return
        if self._bar is None:
            self._plain(f"{self._text()}  valid {name} {value:.4f}")
        self._draw()

    def say(self, text: str) -> None:
        """Writes a line of its own."""
        if self.enabled:
            self._console.print(text, markup=False)

    def close(self) -> None:
        """Ends the line that renews itself."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _plain(self, text: str) -> None:
        self.say(text)
        self._shown = self._clock()

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, text=self._text(), refresh=True)
            self._shown = self._clock()

    def _text(self) -> str:
        """Returns all there is to say in one line."""
        pieces = [f"epoch {self._epoch if self._done else 0}", f"step {self._done}/{self.total}"]
        if self.pace.step_s is not None:
            pieces.append(f"{self._samples_per_step / self.pace.step_s:,.0f} samples/s")
        if self._loss is not None:
            pieces.append(f"loss {self._loss:.4f}")
        if self._best is not None:
            pieces.append(f"best {self._best[0]} {self._best[1]:.4f}")
        if self.pace.left_s is not None:
            pieces.append(f"{duration(self.pace.left_s)} left")
        return "  ".join(pieces)


def duration(seconds: float) -> str:
    """Returns seconds in words a person reads at a glance, such as `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
