"""Raw ids, as a user types them, to row numbers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Catalogue
from effrec_cli.errors import ConfigError, nearest_name

_WINDOW = 500
"""Ids in the neighbourhood of a missing one, in their order, among which the nearest is looked for."""


def ids_of_text(text: str) -> list[str]:
    """Returns the ids of a text such as `17,4`, `"one, with a comma",two` or the JSON list `["a,b", 4]`."""
    listed = _json_list(text)
    if listed is not None:
        return listed
    return [word for word in next(csv.reader([text], skipinitialspace=True), []) if word.strip()]


def _json_list(text: str) -> list[str] | None:
    try:
        listed = json.loads(text)
    except ValueError:
        return None
    ids = listed if isinstance(listed, list) else None
    if ids is None or not all(type(each) in (str, int) for each in ids):
        return None
    return [str(each) for each in ids]


def ids_of_file(path: Path) -> list[str]:
    """Returns the ids of a file with one in a line, blank lines left out.

    Raises:
        ConfigError: there is none.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    ids = [line for line in lines if line.strip()]
    if not ids:
        raise ConfigError("The file names nobody and nothing.", where=str(path), fix="write an id a line")
    return ids


def rows_of_ids(catalogue: Catalogue, ids: Sequence[str], kind: str, where: str) -> NDArray[np.int64]:
    """Returns the row numbers of raw ids, int64 [len(ids)].

    Rows are in ascending order of raw id, so that each look-up is a binary search, on disk too.

    Args:
        catalogue: users or items.
        ids: as typed; numbers are recognised where the catalogue's ids are numbers.
        kind: `user` or `item`, for the error.
        where: where the ids were named, for the error.

    Raises:
        ConfigError: an id is not in the catalogue; names the nearest text, or the range of numbers.
    """
    return np.array([_row(catalogue.ids, text.strip(), kind, where) for text in ids], dtype=np.int64)


def _row(known: NDArray[np.generic], text: str, kind: str, where: str) -> int:
    numeric = np.issubdtype(known.dtype, np.integer)
    if numeric and not re.fullmatch(r"-?\d+", text):
        example = f", such as {known[0]}" if len(known) else ""
        raise ConfigError(f"'{text}' is no {kind} id: they are whole numbers{example}.", where=where)
    wanted = int(text) if numeric else text
    at = int(np.searchsorted(known, _bounded(wanted)))
    if at < len(known) and known[at] == wanted:
        return at
    raise ConfigError(
        f"There is no {kind} with the id '{text}'.",
        where=where,
        nearest=None if numeric else _nearest(known, at, text),
        fix=f"one of the {len(known):,} ids in the run's ids/{kind}s.npy{_range(known, numeric)}",
    )


def _bounded(wanted: int | str) -> int | str:
    """Returns a number that int64 can hold and that stands where `wanted` would."""
    return wanted if isinstance(wanted, str) else max(-(2**63), min(wanted, 2**63 - 1))


def _range(known: NDArray[np.generic], numeric: bool) -> str:
    """Returns where numbers begin and end; a number near another tells nothing about what was meant."""
    return f", which go from {known[0]} to {known[-1]}" if numeric and len(known) else ""


def _nearest(known: NDArray[np.generic], at: int, text: str) -> str | None:
    """Returns the id most like `text` among those beside where it would stand."""
    return nearest_name(text, (str(each) for each in known[max(0, at - _WINDOW) : at + _WINDOW]))
