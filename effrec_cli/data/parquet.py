"""Reads parquet: one file, or a folder of them in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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

_BATCH_ROWS = 1 << 19


def is_parquet(path: Path) -> bool:
    """Returns whether `path` is to be read as parquet: a folder, or a file by its name or its first bytes."""
    if path.is_dir() or path.suffix in (".parquet", ".pq"):
        return True
    with path.open("rb") as handle:
        return handle.read(4) == b"PAR1"


def parquet_files(path: Path) -> list[Path]:
    """Returns the file, or a folder's .parquet files by name.

    Raises:
        DataError: the folder has none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise DataError("There is no .parquet file in this folder.", where=str(path))
    return files


def read_parquet(path: Path, columns: Sequence[Column], bad: BadRows) -> Iterator[Block]:
    """Yields the wanted columns of all rows in order, in bounded memory.

    Raises:
        DataError: a file is damaged, a column is missing, or a row is malformed and the rule is `error`.
        EnvironmentFault: pyarrow is not installed.
    """
    rows_before = bad.read
    for file in parquet_files(path):
        yield from _read_file(file, columns, bad)
    if bad.read == rows_before:
        raise DataError("The file has no rows.", where=str(path), fix="check that it was written whole")


def head(path: Path, column: str, count: int = 1000) -> list[str]:
    """Returns the first values of a column as csv would write them; none where there is no such column."""
    import pyarrow as pa

    with open_parquet(parquet_files(path)[0]) as file:
        if column not in file.schema_arrow.names:
            return []
        batch = next(file.iter_batches(batch_size=count, columns=[column]), None)
    if batch is None:
        return []
    values, kind = batch.column(0), batch.schema.field(0).type
    if pa.types.is_floating(kind):
        return [repr(v).removesuffix(".0") for v in values.to_pylist() if v is not None]
    return ["" if v is None else str(v) for v in values.to_pylist()]


def open_parquet(path: Path, buffer_size: int = 0) -> Any:
    """Returns a parquet file, opened.

    Args:
        path: the file.
        buffer_size: bytes that are read at a time; 0 reads a row group's column at once.

    Raises:
        DataError: it is no whole parquet file.
        EnvironmentFault: pyarrow is not installed.
    """
    require_arrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=buffer_size, pre_buffer=buffer_size == 0)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            "This is not a whole parquet file.",
            where=f"{path}: {error}",
            fix="write or copy it again; a csv needs a name that does not end in .parquet",
        ) from error


def _read_file(path: Path, columns: Sequence[Column], bad: BadRows) -> Iterator[Block]:
    with open_parquet(path) as file:
        require_columns(columns, file.schema_arrow.names, path)
        _require_plain(columns, file.schema_arrow, path)
        row, bytes_before = 1, bad.read_bytes
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[c.name for c in columns]):
            block = read_batch(batch, path, row, columns, bad)
            row += len(batch)
            bad.read_bytes = bytes_before + path.stat().st_size * (row - 1) // file.metadata.num_rows
            yield block


def read_batch(batch: Any, path: Path, first: int, columns: Sequence[Column], bad: BadRows) -> Block:
    """Returns the wanted columns of one arrow batch; what is malformed is dropped, where the rule says so.

    Args:
        batch: of the file, with these columns or more.
        path: the file, for errors.
        first: number of the batch's first row in the file, counted from 1.
        columns: the wanted ones.
        bad: the rule for malformed rows, and their count.

    Raises:
        DataError: a row is malformed and the rule is `error`.
    """
    block = _fast(batch, columns)
    if block is None:
        return _careful(batch, path, first, columns, bad)
    bad.read += len(batch)
    return block


def _require_plain(columns: Sequence[Column], schema: Any, path: Path) -> None:
    """Raises DataError where a wanted column holds lists or structures: none of them is one value."""
    import pyarrow as pa

    for column in columns:
        kind = schema.field(column.name).type
        if pa.types.is_nested(kind):
            raise DataError(
                f"Column '{column.name}' holds a {kind} in each row, not one value.",
                where=str(path),
                fix=f"write a row for each value, or name another column by dataset.{column.role}=COLUMN",
            )


def _fast(batch: Any, columns: Sequence[Column]) -> Block | None:
    """Returns the batch as numpy arrays, or None where any row needs the careful reader."""
    import pyarrow as pa

    block: Block = {}
    for column in columns:
        wanted = column.kind.arrow_type()
        try:
            # Nanoseconds may be cut to microseconds; anything else must not lose a digit.
            array = batch.column(column.name).cast(wanted, safe=not pa.types.is_timestamp(wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        values, flagged = column.kind.fast(array)
        if flagged.any():
            return None
        block[column.role] = values
    return block


def _careful(batch: Any, path: Path, first: int, columns: Sequence[Column], bad: BadRows) -> Block:
    """Returns the batch row by row; a malformed row is dropped and counted, or raised with its row number."""
    rows = []
    for number, values in enumerate(batch.to_pylist(), first):
        bad.read += 1
        texts = {name: "" if value is None else str(value) for name, value in values.items()}
        row = careful_row(texts, columns, f"{path}, row {number}", bad)
        if row is not None:
            rows.append(row)
    return block_of(rows, columns)
