"""Lines of a user and items, or of an item and its title, parted by one tab; with what is wrong in them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from effrec_cli.data.blocks import BadRows
from effrec_cli.data.delimited import on_disk, open_bytes, whole_gzip
from effrec_cli.data.kinds import Kind, MalformedError

_SAMPLES = 1000
_BOM = b"\xef\xbb\xbf"


def _fields(path: Path) -> Iterator[tuple[int, list[str] | None, int]]:
    """Yields each line's number, fields (None where it is not UTF-8) and the bytes read; no empty lines."""
    with whole_gzip(path), open_bytes(path) as handle:
        for number, line in enumerate(handle, 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            text = text.rstrip(b"\r\n")
            if text.strip(b" "):
                yield number, _decoded(text), on_disk(handle).tell()


def _decoded(text: bytes) -> list[str] | None:
    try:
        return text.decode().split("\t")
    except UnicodeDecodeError:
        return None


def _items(text: str) -> list[str]:
    """Returns the items of a line; only spaces part them, since ids may hold any other character."""
    return [item for item in text.split(" ") if item]


def samples(path: Path) -> tuple[list[str], list[str]]:
    """Returns the first users and items as they are written."""
    users: list[str] = []
    items: list[str] = []
    for _, fields, _ in islice(_fields(path), _SAMPLES):
        if fields is not None and len(fields) == 2:
            users.append(fields[0])
            items += _items(fields[1])[: _SAMPLES - len(items)]
    return users, items


class Lines:
    """The lines of a file of users: each user and that user's items.

    Args:
        path: the file.
        users: how users are read.
        items: how items are read.
        bad: what to do with what is malformed; it counts interactions.
        listed: the items that there are; None takes any.

    Attributes:
        share: how much of the file has been read, 0..1.
    """

    def __init__(
        self, path: Path, users: Kind, items: Kind, bad: BadRows, listed: Container[Any] | None
    ) -> None:
        self._path, self._users, self._items, self._bad, self._listed = path, users, items, bad, listed
        self._known: dict[str, Any] = {}
        self.share = 0.0

    def __iter__(self) -> Iterator[tuple[Any, list[Any]]]:
        """Yields users with at least one item.

        Raises:
            DataError: a line is malformed and the rule is `error`.
        """
        size = self._path.stat().st_size
        for number, fields, read in _fields(self._path):
            self.share = read / size
            place = f"{self._path}, line {number}"
            user = self._user(fields, place)
            if user is None:
                continue
            assert fields is not None  # or there were no user
            own = [
                each for each in (self._item(text, place) for text in _items(fields[1])) if each is not None
            ]
            if own:
                yield user, own

    def _user(self, fields: list[str] | None, place: str) -> Any | None:
        """Returns a line's user, or None where the line is left out; it then counts as one interaction."""
        why = _fault(fields, "a user and that user's items")
        if why is None and fields is not None:
            try:
                if not _items(fields[1]):
                    raise MalformedError("has no items after it")
                return self._users.careful(fields[0])
            except MalformedError as error:
                why, place = f"The user {error}.", f"{place}, user '{fields[0][:80]}'"
        self._bad.read += 1
        self._bad.meet(str(why), place)
        return None

    def _item(self, text: str, place: str) -> Any | None:
        """Returns an item, or None where it is left out."""
        self._bad.read += 1
        item = self._known.get(text)
        if item is not None:
            return item
        try:
            item = self._items.careful(text)
            if self._listed is not None and item not in self._listed:
                raise MalformedError("is not in the file of items")
        except MalformedError as error:
            self._bad.meet(
                f"An item {error}.",
                f"{place}, item '{text[:80]}'",
                "mend the files, or leave such items out by dataset.bad_rows=drop",
            )
            return None
        self._known[text] = item
        return item


def _fault(fields: list[str] | None, what: str) -> str | None:
    """Returns what is wrong with a line as a whole, or None."""
    if fields is None:
        return "A line is not valid UTF-8."
    if len(fields) != 2:
        tabs = {1: "no tab", 3: "two tabs"}.get(len(fields), f"{len(fields) - 1} tabs")
        return f"A line has {tabs}, and one tab parts {what}."
    return None


def item_titles(path: Path, kind: Kind, bad: BadRows, chars: int) -> dict[Any, str]:
    """Returns the titles by item; an item that is there again with another title is malformed.

    Lines that are left out are counted as dropped, and are no interactions.

    Raises:
        DataError: a line is malformed and the rule is `error`.
    """
    titles: dict[Any, str] = {}
    for number, fields, _ in _fields(path):
        place = f"{path}, line {number}"
        why = _fault(fields, "an item and its title")
        if why is None and fields is not None:
            try:
                item, title = kind.careful(fields[0]), fields[1][:chars]
                if titles.setdefault(item, title) == title:
                    continue
                raise MalformedError("is there before, with another title")
            except MalformedError as error:
                why, place = f"The item {error}.", f"{place}, item '{fields[0][:80]}'"
        bad.read += 1
        bad.meet(str(why), place)
    return titles
