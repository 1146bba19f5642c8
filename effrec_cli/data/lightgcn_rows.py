"""Lines of a user and items, all of them whole numbers parted by blanks, and what is wrong in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from effrec_cli.data.blocks import BadRows
from effrec_cli.data.kinds import MalformedError, Whole
from effrec_cli.data.types import Int64
from effrec_cli.errors import DataError

_SAMPLES = 1000
_CHUNK_ROWS = 1 << 18
_MOST_DIGITS = 18
"""Any number of so many digits fits into 64 bits."""
_BOM = b"\xef\xbb\xbf"
_ID = Whole(low=0)


def _fields(path: Path) -> Iterator[tuple[int, list[bytes], int]]:
    """Yields each line's number, its fields and the bytes read so far; no blank lines."""
    read = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            read += len(line)
            fields = (line.removeprefix(_BOM) if number == 1 else line).split()
            if fields:
                yield number, fields, read


def is_pairs(path: Path) -> bool:
    """Returns whether a file has one user and one item a line, and not a user with all items.

    Nine in ten of the first lines then have two numbers, so that a stray line is told and not read otherwise.
    Some user is there again, or the file is called `NAME.train`: lists have a user once.
    """
    lines = [fields for _, fields, _ in islice(_fields(path), _SAMPLES)]
    two = [fields[0] for fields in lines if len(fields) == 2]
    again = len(set(two)) < len(two)
    return len(two) >= 0.9 * len(lines) > 0 and (again or path.suffix == ".train")


class IdLines:
    """The rows of a file.

    Args:
        path: the file.
        pairs: a line has one item, and not any number of them.
        bad: what to do with what is malformed; it counts rows.

    Attributes:
        without_items: users' lines that name no item.
        share: how much of the file has been read, 0..1.
    """

    def __init__(self, path: Path, pairs: bool, bad: BadRows) -> None:
        self._path, self._pairs, self._bad = path, pairs, bad
        self.without_items = 0
        self.share = 0.0

    def __iter__(self) -> Iterator[tuple[Int64, Int64]]:
        """Yields users and items, int64, some rows at a time.

        Raises:
            DataError: a line is malformed and the rule is `error`, or there is none.
        """
        size, before = self._path.stat().st_size, self._bad.read
        users: list[int] = []
        items: list[int] = []
        for number, fields, read in _fields(self._path):
            user, own = self._line(number, fields)
            users += [user] * len(own)
            items += own
            if len(items) >= _CHUNK_ROWS:
                self.share = read / size
                yield _arrays(users, items)
                users, items = [], []
        self.share = 1.0
        if items:
            yield _arrays(users, items)
        if self._bad.read == before:
            raise DataError(
                "The file has no rows.", where=str(self._path), fix="check that it was written whole"
            )

    def _line(self, number: int, fields: list[bytes]) -> tuple[int, list[int]]:
        """Returns a line's user and items; without items where it is left out."""
        if self._pairs and len(fields) != 2:
            self._bad.read += 1
            what = f"A line has {len(fields)} number{'s' * (len(fields) > 1)}, and a pair has two."
            self._bad.meet(what, self._place(number), _OR_LISTS)
            return 0, []
        if all(map(bytes.isdigit, fields)) and max(map(len, fields)) <= _MOST_DIGITS:
            user, *own = map(int, fields)
        else:
            user, own = self._careful(number, fields)
        self.without_items += len(fields) == 1
        self._bad.read += len(own)
        return user, own

    def _careful(self, number: int, fields: list[bytes]) -> tuple[int, list[int]]:
        """Returns what of a line can be read: a malformed user leaves out the line, an item itself."""
        user = self._number(number, fields[0], "user")
        own = (self._number(number, text, "item") for text in fields[1:] if user is not None)
        return user or 0, [item for item in own if item is not None]

    def _number(self, number: int, text: bytes, role: str) -> int | None:
        try:
            return _ID.careful(text.decode(errors="replace"))
        except MalformedError as error:
            self._bad.read += 1
            shown = text.decode(errors="replace")[:80]
            self._bad.meet(f"The {role} '{shown}' {error}.", self._place(number))
            return None

    def _place(self, number: int) -> str:
        return f"{self._path}, line {number}"


_OR_LISTS = (
    "mend the file, leave such lines out by dataset.bad_rows=drop, or dataset.layout=lists where a line has "
    "a user and all items of that user"
)


def _arrays(users: list[int], items: list[int]) -> tuple[Int64, Int64]:
    return np.array(users, dtype=np.int64), np.array(items, dtype=np.int64)


def found_offset(paths: Sequence[Path], rule: str) -> int:
    """Returns what was added to the items' ids of files of pairs: the number of users, or nothing.

    The number of users is one more than the highest of them. Where no item lies below it, items were numbered
    behind the users; where items begin at 0 or 1, on their own.

    Args:
        paths: of the files.
        rule: what is done with malformed lines, `error` or `drop`.

    Raises:
        DataError: items begin elsewhere, or a line is malformed and the rule is `error`.
    """
    most_user, least_item = -1, np.iinfo(np.int64).max
    for path in paths:
        for users, items in IdLines(path, True, BadRows(rule)):
            most_user, least_item = max(most_user, int(users.max())), min(least_item, int(items.min()))
    if least_item > most_user:
        return most_user + 1
    if least_item <= 1:
        return 0
    raise DataError(
        f"Items begin at {least_item:,}: neither at 0 or 1, as they would when numbered on their own, nor at "
        f"{most_user + 1:,} or above, as they would behind the users.",
        where=str(paths[0]),
        fix="say what was added to their ids: dataset.item_offset=NUMBER, or 0 for nothing",
    )
