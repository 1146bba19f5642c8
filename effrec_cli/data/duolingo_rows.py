"""Reads the files of Duolingo's 2018 shared task (SLAM): exercises, the mistakes in them, and their keys.

An exercise is a `# prompt:` line (not every format has one), a `# user:... days:...` line and a line for each
token, whose seventh column is 1 for a mistake. The parts for dev and test leave that column out; it is in a
file of its own, a line `id label` for each token. A blank line ends an exercise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from effrec_cli.data.blocks import BadRows
from effrec_cli.errors import DataError

DAY = 86_400
"""Seconds."""

_TOKEN_COLUMNS = 6
_LABELS = {"0": 0, "1": 1}


@dataclass
class Exercise:
    """One exercise.

    Attributes:
        prompt: what is to be translated, lower-cased; "" where the format has none.
        user: raw id of the user.
        time: seconds since the user began.
        mistakes: tokens that are wrong.
    """

    prompt: str
    user: str
    time: int
    mistakes: int


class _Malformed(Exception):
    """A line that cannot be read: what is wrong, its number, and its value."""

    def __init__(self, what: str, line: int, value: str) -> None:
        super().__init__(what)
        self.what, self.line, self.value = what, line, value


def read_key(path: Path) -> dict[str, int]:
    """Returns which tokens are mistakes, by their ids.

    Raises:
        DataError: a line is no id with a label of 0 or 1; without it the exercises could not be judged.
    """
    labels = {}
    with path.open(encoding="utf-8", errors="backslashreplace") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                token, *rest = line.split()
                if len(rest) != 1 or rest[0] not in _LABELS:
                    raise DataError(
                        "A line of a key is not a token's id and 0 or 1.",
                        where=f"{path}, line {number}, value '{line.strip()[:80]}'",
                        fix="get the file again",
                    )
                labels[token] = _LABELS[rest[0]]
    return labels


def read_exercises(path: Path, key: dict[str, int] | None, bad: BadRows) -> Iterator[Exercise]:
    """Yields the exercises in file order.

    Args:
        path: the part's file.
        key: its tokens' labels; None where the file has them itself.
        bad: what to do with a malformed exercise.

    Raises:
        DataError: the file has no exercise, or one is malformed and the rule is `error`.
    """
    before = bad.read
    with path.open(encoding="utf-8", errors="surrogateescape") as handle:
        for lines in _groups(handle, bad):
            bad.read += 1
            try:
                yield _exercise(lines, key)
            except _Malformed as error:
                bad.meet(
                    error.what,
                    f"{path}, line {error.line}, value '{error.value[:80]}'",
                    "get the file again, or leave such exercises out by dataset.bad_rows=drop",
                )
    if bad.read == before:
        raise DataError("The file has no exercise.", where=str(path), fix="check that it was written whole")


def _groups(handle: IO[str], bad: BadRows) -> Iterator[list[tuple[int, str]]]:
    """Yields the numbered lines between blank ones."""
    group: list[tuple[int, str]] = []
    for number, line in enumerate(handle, 1):
        bad.read_bytes += len(line.encode("utf-8", errors="surrogateescape"))
        text = line.strip()
        if text:
            group.append((number, text))
        elif group:
            yield group
            group = []
    if group:
        yield group


def _exercise(lines: list[tuple[int, str]], key: dict[str, int] | None) -> Exercise:
    """Returns the exercise that some lines are, or raises _Malformed."""
    prompt, about, tokens = "", None, []
    for number, text in lines:
        if text.startswith("# prompt:"):
            prompt = text.removeprefix("# prompt:").strip().lower()
        elif text.startswith("# "):
            about = (number, text)
        else:
            tokens.append(_mistake(number, text, key))
    first = lines[0]
    if about is None:
        raise _Malformed("An exercise lacks its line '# user:... days:...'.", *first)
    if not tokens:
        raise _Malformed("An exercise has no tokens.", *first)
    if any("\udc80" <= c <= "\udcff" for c in prompt):
        raise _Malformed("A prompt is not valid UTF-8.", *first)
    user, time = _user_and_time(*about)
    if any("\udc80" <= c <= "\udcff" for c in user):
        raise _Malformed("A user's id is not valid UTF-8.", *about)
    return Exercise(prompt, user, time, sum(tokens))


def _user_and_time(number: int, text: str) -> tuple[str, int]:
    """Returns the user's id and the seconds since they began, of a line of `name:value` pairs."""
    found = dict(pair.split(":", 1) for pair in text[2:].split() if ":" in pair)
    for name in ("user", "days"):
        if not found.get(name):
            raise _Malformed(f"An exercise does not say its '{name}'.", number, text)
    try:
        days = float(found["days"])
    except ValueError:
        days = math.nan
    if not 0 <= days < 1e6:
        raise _Malformed("The column 'days' is not a number of days.", number, found["days"])
    return found["user"], round(days * DAY)


def _mistake(number: int, text: str, key: dict[str, int] | None) -> int:
    """Returns 1 where a token is a mistake, from its line or from the key."""
    columns = text.split()
    wanted = _TOKEN_COLUMNS + (key is None)
    if len(columns) != wanted:
        raise _Malformed(f"A token has {len(columns)} columns instead of {wanted}.", number, text)
    if key is None:
        if columns[-1] not in _LABELS:
            raise _Malformed("The label of a token, its last column, is not 0 or 1.", number, columns[-1])
        return _LABELS[columns[-1]]
    if columns[0] not in key:
        raise _Malformed("The key does not have this token.", number, columns[0])
    return key[columns[0]]
