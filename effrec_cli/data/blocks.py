"""Rows as columns of values, and what happens to a row that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.kinds import Kind, Label, MalformedError, Text
from effrec_cli.errors import DataError, EnvironmentFault, nearest_name

Block = dict[str, NDArray[Any]]
"""Some consecutive rows: an array of values by role, all of one length."""


@dataclass(frozen=True)
class Column:
    """One column that is read.

    Attributes:
        role: what it is for: user, item, time, rating, label, correct or title.
        name: what the file calls it.
        kind: what it holds.
        otherwise: what else than mending or dropping a malformed row may be done.
        setting: the one of the dataset's that names it; None is that of its role.
    """

    role: str
    name: str
    kind: Kind
    otherwise: str = ""
    setting: str | None = None


_MEND = "mend the row, or leave such rows out by dataset.bad_rows=drop"


@dataclass
class BadRows:
    """What is done with a malformed row, and how many there were.

    Attributes:
        rule: `error` or `drop`.
        dropped: rows left out so far.
        read: rows met so far, the dropped ones included.
        read_bytes: what of the files has been read so far, as they lie on the disk.
    """

    rule: str
    dropped: int = 0
    read: int = 0
    read_bytes: int = 0

    def meet(self, what: str, where: str, fix: str = _MEND) -> None:
        """Counts a malformed row, or raises DataError about it, as the rule says."""
        if self.rule == "error":
            raise DataError(what, where=where, fix=fix)
        self.dropped += 1


def careful_row(
    texts: Mapping[str, str], columns: Sequence[Column], place: str, bad: BadRows
) -> list[Any] | None:
    """Returns the values of one row in the order of `columns`, or None where the row is left out.

    Args:
        texts: the row's values as text, by column name.
        columns: what is read.
        place: file and line, for the error.
        bad: what to do with a malformed row.

    Raises:
        DataError: the row is malformed and the rule is `error`.
    """
    try:
        return [column.kind.careful(texts[column.name]) for column in columns]
    except MalformedError:
        column, why = _first_malformed(texts, columns)
    text = texts[column.name]
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    bad.meet(
        f"A value of column '{column.name}' {why}.",
        f"{place}, column '{column.name}', value '{shown}'",
        _fix(column, text),
    )
    return None


def _fix(column: Column, text: str) -> str:
    """Returns what can be done about a malformed value."""
    if isinstance(column.kind, Label) and text.strip():
        return (
            "write labels as 0 and 1, or say by dataset.label_above=NUMBER above what one counts as 1; "
            "dataset.bad_rows=drop would leave out every row labelled otherwise"
        )
    return f"{_MEND}, or {column.otherwise}" if column.otherwise and _is_name(column, text) else _MEND


def _is_name(column: Column, text: str) -> bool:
    """Returns whether a value that is malformed as it is read could be read as a name."""
    try:
        Text().careful(text.strip())
    except MalformedError:
        return False
    return not isinstance(column.kind, Text)


def _first_malformed(texts: Mapping[str, str], columns: Sequence[Column]) -> tuple[Column, str]:
    """Returns the first column whose value is malformed, and what is wrong with it."""
    for column in columns:
        try:
            column.kind.careful(texts[column.name])
        except MalformedError as error:
            return column, str(error)
    raise AssertionError("this row is not malformed")


def block_of(rows: Sequence[Sequence[Any]], columns: Sequence[Column]) -> Block:
    """Returns rows as one array a column."""
    block: Block = {}
    for at, column in enumerate(columns):
        array = np.empty(len(rows), dtype=column.kind.dtype)
        array[:] = [row[at] for row in rows]
        block[column.role] = array
    return block


def require_columns(columns: Sequence[Column], names: Sequence[str], path: Path) -> None:
    """Raises DataError where a wanted column is not, or is twice, among the file's `names`."""
    for column in columns:
        if names.count(column.name) == 1:
            continue
        found = "There is more than one column" if column.name in names else "There is no column"
        raise DataError(
            f"{found} called '{column.name}'.",
            where=f"{path}, which has the columns {', '.join(names[:20])}",
            nearest=None if column.name in names else nearest_name(column.name, names),
            fix=f"name it by dataset.{column.setting or column.role}=COLUMN{_or_the_separator(names)}",
        )


def _or_the_separator(names: Sequence[str]) -> str:
    """Returns a hint where a whole header seems to have been read as one column, else nothing."""
    marks = [mark for mark in ";\t|," if len(names) == 1 and mark in names[0]]
    if not marks:
        return ""
    quoted = "dataset.separator=tab" if marks[0] == "\t" else f"\"dataset.separator='{marks[0]}'\""
    return f", or name what parts the columns: {quoted}"


def require_arrow() -> None:
    """Raises EnvironmentFault where pyarrow, which reads raw files, is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            "Reading raw data needs pyarrow, which is not installed.",
            where="a prepared dataset opens without it",
            fix="pip install 'effrec[data]'",
        ) from error
