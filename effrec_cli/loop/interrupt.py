"""Turns SIGTERM and SIGINT into a run that saves itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from effrec_cli.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """Takes note of a signal, and says when it may break in.

    By default a signal raises `Interrupted` on the spot. Inside `deferred` it only sets `requested`, which
    the loop looks at between two steps and two micro-batches; a second Ctrl-C there breaks in all the same.

    Attributes:
        requested: name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._waits = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Lets what runs inside look at `requested` by itself."""
        with self._waiting(True):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal break into what runs inside, also one that came before."""
        with self._waiting(False):
            if self.requested:
                raise self.error()
            yield

    def error(self) -> Interrupted:
        """Returns the error to raise."""
        return Interrupted(f"Stopped by {self.requested}.", fix="effrec resume RUN goes on where it stopped")

    @contextmanager
    def _waiting(self, waits: bool) -> Iterator[None]:
        before, self._waits = self._waits, waits
        try:
            yield
        finally:
            self._waits = before

    def _came(self, number: int, _frame: FrameType | None) -> None:
        again = self.requested == "SIGINT" and number == signal.SIGINT
        self.requested = signal.Signals(number).name
        if again or not self._waits:
            raise self.error()


_listening: list[Interrupts] = []


@contextmanager
def held() -> Iterator[None]:
    """Lets Ctrl-C wait until what runs inside is over.

    For imports: torch swallows a KeyboardInterrupt that falls into its own import of numpy, and goes on with
    half a module.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def listening() -> Iterator[Interrupts]:
    """Catches the signals inside; a second call inside the first shares its state.

    Outside the main thread, where Python allows no handlers, it only returns an object that hears nothing.
    """
    if _listening:
        yield _listening[-1]
        return
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts._came) for number in _SIGNALS}
    _listening.append(interrupts)
    try:
        yield interrupts
    finally:
        _listening.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
