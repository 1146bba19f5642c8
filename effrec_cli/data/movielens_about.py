"""What MovieLens tells about movies and users: titles, genres, and demographic features."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.errors import DataError

# In the order of the flags in u.item, as the release's README lists them.
# fmt: off
FLAGGED_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_NO_GENRE = "(no genres listed)"

# ml-1m publishes occupations as numbers, with these meanings in its README.
# fmt: off
_OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer",
    "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer",
    "tradesman/craftsman", "unemployed", "writer",
)
# fmt: on


@dataclass(frozen=True)
class Item:
    """One movie.

    Attributes:
        title: with the year, as published.
        genres: names of its genres.
    """

    title: str
    genres: tuple[str, ...]


@dataclass(frozen=True)
class User:
    """One user's features.

    Attributes:
        gender: 0 F, 1 M.
        age: years (100k) or the lower end of the age group (1m).
        occupation: index into the release's occupations.
        zip_code: as published.
    """

    gender: int
    age: int
    occupation: int
    zip_code: str


def read_items(path: Path, layout: str) -> dict[int, Item]:
    """Returns the movies by id.

    Raises:
        DataError: a row is not as the layout says, with its line.
    """
    parse = {"csv": _item_csv, "dat": _item_csv, "tab": _item_tab}[layout]
    return dict(_parsed(path, layout, parse))


def read_users(path: Path, layout: str) -> tuple[dict[int, User], list[str]]:
    """Returns the users by id, and the names of occupations.

    Raises:
        DataError: a row is not as the layout says, with its line.
    """
    if layout == "dat":
        return dict(_parsed(path, layout, _user_1m)), list(_OCCUPATIONS_1M)
    names = sorted({fields[3] for _, fields in _fields(path, layout) if len(fields) == 5})
    return dict(_parsed(path, layout, lambda fields: _user_100k(fields, names))), names


def _text(path: Path) -> str:
    """Returns a file's text: UTF-8 (10m and later), or else Latin-1 (100k, 1m)."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _fields(path: Path, layout: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each line's number and fields, without a header."""
    text = io.StringIO(_text(path), newline="")
    if layout == "csv":
        reader = csv.reader(text)
        next(reader, None)
        yield from ((reader.line_num, fields) for fields in reader if fields)
        return
    separator = "::" if layout == "dat" else "|"
    for number, line in enumerate(text, 1):
        if line.strip():
            yield number, line.rstrip("\r\n").split(separator)


def _parsed(path: Path, layout: str, parse: Any) -> Iterator[tuple[int, Any]]:
    for line, fields in _fields(path, layout):
        try:
            yield parse(fields)
        except (ValueError, IndexError) as error:
            raise DataError(
                "A row is not as this release lays it out.",
                where=f"{path}, line {line}, value '{'|'.join(fields)[:80]}'",
                fix="get the file again",
            ) from error


def _item_csv(fields: list[str]) -> tuple[int, Item]:
    """Parses id, title, genres; a title with the separator in it has been cut and is put together again."""
    number, *title, genres = fields
    if not title:
        raise ValueError("too few fields")
    names = () if genres == _NO_GENRE else tuple(genre for genre in genres.split("|") if genre)
    return int(number), Item("::".join(title), names)


def _item_tab(fields: list[str]) -> tuple[int, Item]:
    """Parses id, title, two dates, an address and one flag a genre."""
    flags = fields[-len(FLAGGED_GENRES) :]
    if len(fields) != 5 + len(FLAGGED_GENRES) or not set(flags) <= {"0", "1"}:
        raise ValueError("wrong number of fields")
    genres = (name for name, flag in zip(FLAGGED_GENRES, flags, strict=True) if flag == "1")
    return int(fields[0]), Item(fields[1], tuple(genres))


def _user_1m(fields: list[str]) -> tuple[int, User]:
    number, gender, age, occupation, zip_code = fields
    if int(occupation) not in range(len(_OCCUPATIONS_1M)):
        raise ValueError("no such occupation")
    return int(number), User("FM".index(gender), int(age), int(occupation), zip_code)


def _user_100k(fields: list[str], names: list[str]) -> tuple[int, User]:
    number, age, gender, occupation, zip_code = fields
    return int(number), User("FM".index(gender), int(age), names.index(occupation), zip_code)


def item_genres(items: dict[int, Item], item_ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Returns `item_genres` uint8 [V, G] and `genre_names` [G], over the genres of all listed movies."""
    names = sorted({genre for item in items.values() for genre in item.genres})
    column = {name: at for at, name in enumerate(names)}
    flags = np.zeros((len(item_ids), len(names)), dtype=np.uint8)
    for row, number in enumerate(item_ids.tolist()):
        if number in items:
            flags[row, [column[genre] for genre in items[number].genres]] = 1
    return {"item_genres": flags, "genre_names": np.array(names, dtype=np.str_)}


def user_features(
    users: dict[int, User], names: list[str], user_ids: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Returns the features aligned with the user rows; -1 and "" for a user that is not listed."""
    unknown = User(-1, -1, -1, "")
    rows = [users.get(number, unknown) for number in user_ids.tolist()]
    return {
        "user_gender": np.array([row.gender for row in rows], dtype=np.int8),
        "user_age": np.array([row.age for row in rows], dtype=np.int16),
        "user_occupation": np.array([row.occupation for row in rows], dtype=np.int16),
        "user_zip": np.array([row.zip_code for row in rows], dtype=np.str_),
        "occupation_names": np.array(names, dtype=np.str_),
    }
