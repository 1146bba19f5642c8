"""Reads csv and its relatives: arrow for whole blocks of lines, the careful reader for a block it refuses."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from effrec_cli.data.blocks import (
    BadRows,
    Block,
    Column,
    block_of,
    careful_row,
    require_arrow,
    require_columns,
)
from effrec_cli.errors import DataError

_BLOCK_BYTES = 1 << 24
_QUOTED_LIMIT = 1 << 26


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        separator: between the fields; one character, or the same one twice (`::`).
        names: the columns' names where the file has no header line; None reads them from it.
        quoted: fields may be quoted by `"`, and may then hold separators and line ends.
    """

    separator: str = ","
    names: tuple[str, ...] | None = None
    quoted: bool = True


@dataclass(frozen=True)
class _Lines:
    """Some whole lines.

    Attributes:
        data: their bytes.
        first: number of the first line, counted from 1.
    """

    data: bytes
    first: int


def open_bytes(path: Path) -> IO[bytes]:
    """Returns the file opened for reading, unpacked where its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


@contextmanager
def whole_gzip(path: Path) -> Iterator[None]:
    """Turns what a gzip that is damaged or cut short raises while it is read into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"{path}: {error}"
        raise DataError("This gzip file is damaged or cut short.", where=where, fix="get it again") from error


def on_disk(handle: IO[bytes]) -> IO[bytes]:
    """Returns the file as it lies on the disk, packed or not."""
    return handle.fileobj if isinstance(handle, gzip.GzipFile) else handle


def read_delimited(path: Path, dialect: Dialect, columns: Sequence[Column], bad: BadRows) -> Iterator[Block]:
    """Yields the wanted columns of all rows in file order, in bounded memory.

    Raises:
        DataError: the file is empty, a column is missing, or a row is malformed and the rule is `error`.
        EnvironmentFault: pyarrow is not installed.
    """
    require_arrow()
    with whole_gzip(path), open_bytes(path) as handle:
        names, first = _header(handle, path, dialect)
        require_columns(columns, names, path)
        yield from counted_blocks(
            path,
            handle,
            line_blocks(handle, first, dialect.quoted),
            lambda lines: _fast(lines, dialect, names, columns),
            lambda lines: _careful(lines, path, dialect, names, columns, bad),
            bad,
        )


def counted_blocks(
    path: Path,
    handle: IO[bytes],
    pieces: Iterator[_Lines],
    fast: Callable[[_Lines], Block | None],
    careful: Callable[[_Lines], Block],
    bad: BadRows,
) -> Iterator[Block]:
    """Yields what becomes of the pieces of a file, counting rows and the bytes they took on the disk.

    Args:
        path: of the file.
        handle: it, open; `pieces` read from there.
        pieces: of whole records.
        fast: reads one, or returns None where something in it is not as it should be.
        careful: reads such a one row by row, and counts its rows.
        bad: counts.

    Raises:
        DataError: there are no rows.
    """
    rows_before, bytes_before = bad.read, bad.read_bytes
    for lines in pieces:
        block = fast(lines)
        if block is None:
            block = careful(lines)
        else:
            bad.read += len(next(iter(block.values())))
        bad.read_bytes = bytes_before + on_disk(handle).tell()
        yield block
    if bad.read == rows_before:
        raise DataError("The file has no rows.", where=str(path), fix="check that it was written whole")


def head(path: Path, dialect: Dialect, column: str, count: int = 1000) -> list[str]:
    """Returns the first values of a column as text, malformed rows left out; none where it is not there."""
    with whole_gzip(path), open_bytes(path) as handle:
        names, first = _header(handle, path, dialect)
        lines = next(line_blocks(handle, first, dialect.quoted, size=1 << 20), _Lines(b"", first))
    if column not in names:
        return []
    at = names.index(column)
    whole = (fields for _, fields in _records(lines, dialect) if len(fields) == len(names))
    return [fields[at] for fields in islice(whole, count)]


def _header(handle: IO[bytes], path: Path, dialect: Dialect) -> tuple[list[str], int]:
    """Returns the columns' names and the number of the first line of data, where `handle` then stands."""
    if dialect.names is not None:
        return list(dialect.names), 1
    line = handle.readline(1 << 20)
    if not line.strip():
        raise DataError("The file is empty." if not line else "The first line is blank.", where=str(path))
    text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    return next(csv.reader([text], delimiter=dialect.separator)), 2


def line_blocks(handle: IO[bytes], first: int, quoted: bool, size: int = _BLOCK_BYTES) -> Iterator[_Lines]:
    """Yields the rest of a file in pieces of whole records, of about `size` bytes."""
    rest, line = b"", first
    while more := handle.read(size):
        data = rest + more
        cut = _last_record_end(data, quoted)
        rest = data[cut:]
        if cut:
            yield _Lines(data[:cut], line)
            line += data.count(b"\n", 0, cut)
    if rest:
        yield _Lines(rest, line)


def _last_record_end(data: bytes, quoted: bool) -> int:
    """Returns where the last whole record ends: after a line end outside quotes, or 0 where there is none.

    Outside quotes, the number of quotes before is even. A stray quote would make it odd for good, so a
    block that has grown too large is cut at any line end.
    """
    cut = data.rfind(b"\n") + 1
    if not quoted or len(data) > _QUOTED_LIMIT:
        return cut
    quotes = data.count(b'"', 0, cut)
    while cut and quotes % 2:
        previous = data.rfind(b"\n", 0, cut - 1) + 1
        quotes -= data.count(b'"', previous, cut)
        cut = previous
    return cut


def _fast(lines: _Lines, dialect: Dialect, names: list[str], columns: Sequence[Column]) -> Block | None:
    """Returns the block as arrow reads it, or None where any row needs the careful reader."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if dialect.quoted and _has_open_quote(lines):
        return None  # Arrow would take all lines from there on for one value, and say nothing.
    gap = len(dialect.separator) - 1
    read_names = [part for name in names for part in (name, *(f"\0{name}{i}" for i in range(gap)))]
    read_names = read_names[: len(read_names) - gap]
    types = {column.name: column.kind.arrow_type() for column in columns}
    types |= {name: pa.null() for name in read_names if name.startswith("\0")}
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(lines.data),
            read_options=arrow_csv.ReadOptions(column_names=read_names, block_size=1 << 22),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.separator[0],
                quote_char='"' if dialect.quoted else False,
                newlines_in_values=dialect.quoted,
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except pa.ArrowInvalid:
        return None
    return columns_of(table, columns)


def columns_of(table: Any, columns: Sequence[Column]) -> Block | None:
    """Returns a table's columns as numpy arrays, or None where a value is flagged."""
    block: Block = {}
    for column in columns:
        values, flagged = column.kind.fast(table.column(column.name).combine_chunks())
        if flagged.any():
            return None
        block[column.role] = values
    return block


def _careful(
    lines: _Lines, path: Path, dialect: Dialect, names: list[str], columns: Sequence[Column], bad: BadRows
) -> Block:
    """Returns the block row by row; a malformed row is dropped and counted, or raised with its line."""
    rows = []
    for line, fields in _records(lines, dialect):
        bad.read += 1
        place = f"{path}, line {line}"
        if not fields:
            bad.meet("A row cannot be read; a quote in it is never closed.", place)
        elif len(fields) != len(names):
            bad.meet(f"A row has {len(fields)} columns instead of {len(names)}.", place)
        else:
            row = careful_row(dict(zip(names, fields, strict=True)), columns, place, bad)
            if row is not None:
                rows.append(row)
    return block_of(rows, columns)


def _records(lines: _Lines, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yields each record's first line and its fields, none where it cannot be read; no blank lines."""
    text = list(io.StringIO(lines.data.decode("utf-8", errors="surrogateescape"), newline=""))
    if dialect.quoted:
        yield from _quoted_records(text, lines, dialect)
        return
    for number, line in enumerate(text, lines.first):
        if line.strip("\r\n"):
            yield number, line.rstrip("\r\n").split(dialect.separator)


def _quoted_records(text: list[str], lines: _Lines, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yields records as `_records` does; after a quote that never closes, goes on with the next line."""
    at = 0
    while at < len(text):
        start = at
        reader = csv.reader(text[start:], delimiter=dialect.separator, strict=_has_open_quote(lines))
        try:
            for fields in reader:
                if fields:
                    yield lines.first + at, fields
                at = start + reader.line_num
        except csv.Error:
            yield lines.first + at, []
            at += 1


def _has_open_quote(lines: _Lines) -> bool:
    """Returns whether some quote in these lines has no partner."""
    return lines.data.count(b'"') % 2 == 1
