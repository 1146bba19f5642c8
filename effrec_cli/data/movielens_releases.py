"""Tells MovieLens releases apart, so that one is not taken for another: by their files and their counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from effrec_cli.errors import DataError

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Release:
    """What a release is known by.

    Attributes:
        files: it is published with these.
        without: it is published without these, which another release of its layout has.
        ratings: how many there are, as GroupLens publishes it.
    """

    files: frozenset[str]
    ratings: int
    without: frozenset[str] = frozenset()


_CSV, _DAT = frozenset({"ratings.csv", "movies.csv"}), frozenset({"ratings.dat", "movies.dat"})
_USERS = frozenset({"users.dat"})

RELEASES = {
    "ml-latest-small": Release(_CSV, 100_836),
    "ml-100k": Release(frozenset({"u.data", "u.item"}), 100_000),
    "ml-1m": Release(_DAT | _USERS, 1_000_209),
    "ml-10m": Release(_DAT, 10_000_054, without=_USERS),
    "ml-20m": Release(_CSV, 20_000_263),
    "ml-25m": Release(_CSV, 25_000_095),
    "ml-32m": Release(_CSV, 32_000_204),
}


def with_files(names: Collection[str]) -> list[str]:
    """Returns the releases that are published with such files."""
    there = set(names)
    return [
        name for name, release in RELEASES.items() if release.files <= there and not release.without & there
    ]


def count_ratings(path: Path, *, header: bool) -> int:
    """Returns the rows of a file of ratings, by its line ends; much faster than reading them."""
    lines, last = 0, b"\n"
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n") - header


def refuse_another(name: str, count: int) -> None:
    """Raises DataError where `count` ratings are those of another release than `name`, of the same layout."""
    known = RELEASES.get(name)
    if known is None or known.ratings == count:
        return
    for other, release in RELEASES.items():
        if release.ratings == count and release.files == known.files:
            raise DataError(
                f"These are the {count:,} ratings of {other}, not the {known.ratings:,} of {name}.",
                where=f"dataset={name}",
                fix=f"effrec data import {other} PATH",
            )


def doubt(name: str, count: int) -> str | None:
    """Returns a note where a release has not as many ratings as published, else None."""
    known = RELEASES.get(name)
    if known is None or known.ratings == count:
        return None
    return (
        f"note: {count:,} ratings, but {name} is published with {known.ratings:,}; results are not comparable"
    )
