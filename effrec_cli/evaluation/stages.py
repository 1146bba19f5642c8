"""Stages of a run: what each took, every second counted in one of them alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Clock = Callable[[], float]


class Stages:
    """Measures what a run does beside its training; what is nested counts in the inner stage alone.

    On a GPU each look at the clock waits for the device, so that no stage pays for another's work.

    Args:
        device: what may still be at work when a stage ends.
        clock: seconds from any fixed moment.

    Attributes:
        seconds: what each stage has taken by now, by its name; a stage that never began is missing.
    """

    def __init__(self, device: torch.device | None = None, clock: Clock = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device or torch.device("cpu")
        self._clock = clock
        self._counted = 0.0
        self._born = self.now()

    def now(self) -> float:
        """Returns the clock's seconds once the device has done all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()

    @property
    def whole(self) -> float:
        """Seconds since this object was made, in a stage or not."""
        return self.now() - self._born

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Adds the time inside to the stage `what`, less what `of` and `count` take for others meanwhile."""
        before, counted = self.now(), self._counted
        yield
        spent = self.now() - before - (self._counted - counted)
        self.seconds[what] = self.seconds.get(what, 0.0) + spent
        self._counted += spent

    def count(self, seconds: float) -> None:
        """Takes seconds that have just passed, and that are told elsewhere, out of the stage that is open."""
        self._counted += seconds

    def none(self, what: str) -> None:
        """Notes that the run has the stage `what`, also where there was nothing left to do in it."""
        self.seconds.setdefault(what, 0.0)
