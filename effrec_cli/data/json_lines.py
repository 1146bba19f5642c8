"""Reads files with a JSON object a line: arrow for whole blocks, the careful reader for one it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from effrec_cli.data.blocks import BadRows, Block, Column, block_of, careful_row, require_arrow
from effrec_cli.data.delimited import columns_of, counted_blocks, line_blocks, open_bytes, whole_gzip
from effrec_cli.errors import DataError


def read_json_lines(path: Path, columns: Sequence[Column], bad: BadRows) -> Iterator[Block]:
    """Yields the wanted keys of all objects in file order, in bounded memory.

    Raises:
        DataError: the file is empty or damaged, or a line is malformed and the rule is `error`.
        EnvironmentFault: pyarrow is not installed.
    """
    require_arrow()
    with whole_gzip(path), open_bytes(path) as handle:
        yield from counted_blocks(
            path,
            handle,
            line_blocks(handle, 1, quoted=False),
            lambda lines: _fast(lines.data, columns),
            lambda lines: _careful(lines.data, lines.first, path, columns, bad),
            bad,
        )


def first_object(path: Path) -> dict[str, Any]:
    """Returns the first line's object.

    Raises:
        DataError: it is none.
    """
    with whole_gzip(path), open_bytes(path) as handle:
        line = handle.readline(1 << 24)
    found = _object(line.removeprefix(b"\xef\xbb\xbf"))
    if found is None:
        raise DataError(
            "The first line is no JSON object.",
            where=f"{path}, line 1, value '{line[:80].decode(errors='replace').strip()}'",
            fix="give the file as published, a JSON object in each line",
        )
    return found


def _fast(data: bytes, columns: Sequence[Column]) -> Block | None:
    """Returns the block as arrow reads it, or None where any line needs the careful reader."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = pa.schema([(column.name, column.kind.arrow_type()) for column in columns])
    try:
        table = arrow_json.read_json(
            io.BytesIO(data),
            read_options=arrow_json.ReadOptions(block_size=len(data) + 1),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != sum(1 for line in data.splitlines() if line.strip()):
        return None  # arrow reads two objects of one line as two rows
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None  # text that is not UTF-8
    return columns_of(table, columns)


def _careful(data: bytes, first: int, path: Path, columns: Sequence[Column], bad: BadRows) -> Block:
    """Returns the block line by line; a malformed one is dropped and counted, or raised with its number."""
    rows = []
    for number, line in enumerate(data.split(b"\n"), first):
        if not line.strip():
            continue
        bad.read += 1
        place, found = f"{path}, line {number}", _object(line)
        if found is None:
            bad.meet("A line is no JSON object.", place)
            continue
        texts = {column.name: _text(found.get(column.name)) for column in columns}
        row = careful_row(texts, columns, place, bad)
        if row is not None:
            rows.append(row)
    return block_of(rows, columns)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: Any) -> str:
    """Returns a value as csv would write it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
