"""The errors a user can meet, their exit codes, and the search for the name that was meant.

An error says what happened, where (file, key, value, line), the nearest valid name, and the command or
setting that fixes it. `app.main` prints it on one screen and exits with its code; only `--debug` shows a
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKE = 64
"""Names that may be as much like the one given as the nearest."""


class EffrecError(Exception):
    """An error with a message for the user.

    Args:
        what: what happened, one sentence.
        where: file, line, column, config key or value it happened at.
        nearest: the valid name closest to the one given.
        fix: the command or setting that mends it.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str | None = None, nearest: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.nearest, self.fix = what, where, nearest, fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.nearest:
            lines.append(f"  did you mean: {self.nearest}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ConfigError(EffrecError):
    """A wrong command, key or value, or a path that is not there (exit 2)."""

    exit_code = 2


class DataError(EffrecError):
    """Data that is missing, malformed or does not fit what is asked of it (exit 3)."""

    exit_code = 3


class OutOfMemoryError(EffrecError):
    """The device or the machine has too little memory for the setting (exit 4)."""

    exit_code = 4


class NonFiniteError(EffrecError):
    """A loss, gradient or score that is not a finite number (exit 5)."""

    exit_code = 5


class EnvironmentFault(EffrecError):
    """Something about the machine: no such device, full disk, read-only folder, missing package (exit 6)."""

    exit_code = 6


class Interrupted(EffrecError):
    """The run was told to stop, has saved itself and can be resumed (exit 143)."""

    exit_code = 143


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate most like `name`, of several the one that begins alike; None if none is near."""
    matches = difflib.get_close_matches(name, list(candidates), n=_LIKE, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, each, name).ratio() for each in matches]
    alike = (each for each, ratio in zip(matches, likeness, strict=True) if ratio == likeness[0])
    return max(alike, key=lambda each: _common_start(name, each), default=None)


def _common_start(one: str, other: str) -> int:
    """Returns with how many characters both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def unknown_name(kind: str, name: str, candidates: Iterable[str], *, where: str | None = None) -> ConfigError:
    """Returns the error for a `name` that is not among the valid `candidates` of its `kind`."""
    known = sorted(candidates)
    return ConfigError(
        f"There is no {kind} called '{name}'.",
        where=where,
        nearest=nearest_name(name, known),
        fix=f"choose one of: {', '.join(known)}" if known else None,
    )
