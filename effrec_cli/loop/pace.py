"""How fast training goes, and how long the rest will take: measured, never guessed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """Measures steps and validations apart.

    A step counts from the moment its work is known to be done: on a CPU when it returns, on a GPU where the
    loop waits for the device anyway. The first such moment ends the warm-up and begins the measuring.

    Args:
        clock: seconds from any fixed moment.

    Attributes:
        done: the last step known to be done.
        total: steps there will be at most.
        validations_due: how many validations there will be at most, from where it began.
        validated: whether a validation has come after steps that were measured.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.start(0, 0)

    def start(self, done: int, total: int, between: int = 0, *, due: bool = False) -> None:
        """Begins at step `done` of `total`, with `between` steps between validations (0: there are none).

        With `due` step `done` is itself still to be validated.
        """
        self.done, self.total, self.validated = done, total, False
        self.validations_due = math.ceil(total / between) - done // between + due if between else 0
        self._validations, self._aside_s = 0, 0.0
        self._first: tuple[int, float] | None = None
        self._training_s = 0.0

    def mark(self, done: int) -> None:
        """Takes note that `done` steps are done."""
        now = self._clock() - self._aside_s
        if self._first is None:
            self._first = (done, now)
        self.done, self._training_s = done, now - self._first[1]

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Counts the time inside, a validation and the save after it, apart from the steps."""
        since = self._clock()
        try:
            yield
        finally:
            self._aside_s += self._clock() - since
            self._validations += 1
            self.validated = self.validated or self.measured[0] > 0

    @property
    def measured(self) -> tuple[int, float]:
        """How many steps were measured, and the seconds they took; validations left out."""
        return (0, 0.0) if self._first is None else (self.done - self._first[0], self._training_s)

    @property
    def step_s(self) -> float | None:
        """Seconds a step takes, or None before one was measured."""
        steps, seconds = self.measured
        return seconds / steps if steps and seconds > 0 else None

    @property
    def validation_s(self) -> float | None:
        """Seconds a validation takes with the save after it, or None before the first."""
        return self._aside_s / self._validations if self._validations else None

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take, with its validations as soon as one was measured."""
        if self.step_s is None:
            return None
        validations = max(0, self.validations_due - self._validations)
        return (self.total - self.done) * self.step_s + validations * (self.validation_s or 0.0)
