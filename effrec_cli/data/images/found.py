"""Images of items where they are kept, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from effrec_cli.data.images.decode import BadImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Found:
    """One image.

    Attributes:
        row: of its item.
        place: where it was found, for the user.
        read: returns its bytes; raises BadImageError where they cannot be had.
    """

    row: int
    place: str
    read: Callable[[], bytes]


RowOf = Callable[[str], int]
"""Returns the row of the item of a name, -1 where no item is called so."""


class Store(Protocol):
    """Images by item name."""

    def digest(self, data_root: Path) -> str:
        """Returns what identifies the content."""
        ...

    def images(self, row_of: RowOf) -> Iterator[Found]:
        """Yields the images of items that have a row, in the order they lie in; holds few at a time."""
        ...

    def names(self) -> Iterator[str]:
        """Yields the names that images go by, in their order."""
        ...


def name_of(path: str) -> str | None:
    """Returns the item that an image file is named by, or None where its name does not end as an image's."""
    bare = PurePosixPath(path).name
    stem, suffix = os.path.splitext(bare)  # noqa: PTH122
    return stem if suffix.lower() in SUFFIXES else None


def held(read: Callable[[], bytes]) -> Callable[[], bytes]:
    """Returns what returns the bytes that are read now, for those that lie in a stream."""
    try:
        data = read()
    except BadImageError as bad:
        return _raiser(bad)
    return lambda: data


def _raiser(bad: BadImageError) -> Callable[[], bytes]:
    def fails() -> bytes:
        raise bad

    return fails
