"""Recommendations as rows: to the screen, to JSON lines, to parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.report.layout import Column, Table

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Recommendation:
    """One item for one user.

    Attributes:
        user: raw id; None for a history given by hand.
        rank: 1 for the best.
        item: raw id.
        title: None where the dataset has none.
        score: what the model gives it; comparable inside one list.
    """

    user: int | str | None
    rank: int
    item: int | str
    title: str | None
    score: float


def check_suffix(path: Path) -> None:
    """Refuses a file whose ending names no format we write, or whose folder is not there.

    Raises:
        ConfigError: another ending, with those that there are, or no such folder.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"Recommendations are written as {' or '.join(SUFFIXES)}, not '{path.suffix}'.",
            where=f"--out {path}",
        )
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder '{path.parent}'.", where=f"--out {path}")


def write(path: Path, chunks: Iterable[list[Recommendation]]) -> int:
    """Writes all recommendations to `path` in one move, and returns their number.

    Raises:
        EnvironmentFault: the file cannot be written; what was at `path` is untouched.
    """
    draft = path.with_name(f".writing-{path.name}")
    written = 0
    try:
        with (_jsonl if path.suffix == ".jsonl" else _parquet)(draft) as put:
            for chunk in chunks:
                put(chunk)
                written += len(chunk)
        draft.replace(path)
    except OSError as fault:
        raise EnvironmentFault(f"Cannot write {path}: {fault.strerror}.", fix="another --out") from fault
    finally:
        draft.unlink(missing_ok=True)
    return written


@contextmanager
def _jsonl(path: Path) -> Iterator[Any]:
    with path.open("w", encoding="utf-8") as stream:
        yield lambda rows: stream.writelines(
            json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows
        )


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    writer: Any = None

    def put(rows: list[Recommendation]) -> None:
        nonlocal writer
        writer = writer or parquet.ParquetWriter(path, _schema(rows))
        writer.write_table(pyarrow.table(_columns(rows), schema=writer.schema))

    try:
        yield put
    finally:
        if writer is not None:
            writer.close()


def _schema(rows: list[Recommendation]) -> Any:
    """Returns the types of the columns; ids are numbers or strings as in the first row."""
    import pyarrow

    kinds = {int: pyarrow.int64(), str: pyarrow.string(), type(None): pyarrow.string()}
    user, item = (
        kinds[type(getattr(rows[0], name))] if rows else pyarrow.string() for name in ("user", "item")
    )
    fields = {
        "user": user,
        "rank": pyarrow.int32(),
        "item": item,
        "title": pyarrow.string(),
        "score": pyarrow.float64(),
    }
    return pyarrow.schema(fields)


def _columns(rows: list[Recommendation]) -> dict[str, list[Any]]:
    names = ("user", "rank", "item", "title", "score")
    return {name: [getattr(row, name) for row in rows] for name in names}


def as_table(title: str, rows: list[Recommendation]) -> Table:
    """Returns one user's recommendations as a table; titles where there are any."""
    titled = any(row.title is not None for row in rows)
    columns = [Column(""), Column("item", right=False)]
    columns += [Column("title", right=False)] if titled else []
    lines = [
        [str(row.rank), str(row.item), *([row.title or ""] if titled else []), f"{row.score:.4f}"]
        for row in rows
    ]
    return Table(title, [*columns, Column("score")], lines)
