"""Images in a column of parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from effrec_cli.data.digests import digest_of
from effrec_cli.data.images.decode import check_bytes
from effrec_cli.data.images.found import Found, RowOf, held
from effrec_cli.data.parquet import open_parquet, parquet_files
from effrec_cli.errors import DataError, nearest_name

_BATCH_ROWS = 32
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ParquetStore:
    """Parquet with a column of ids and one of bytes, or of bytes and path as Hugging Face datasets write it.

    Attributes:
        path: file, or folder of them.
        columns: names that the column of ids may have, the first wins.
    """

    path: Path
    columns: Sequence[str]

    def digest(self, data_root: Path) -> str:
        """Returns the sha256 of the files' digests."""
        digests = [digest_of(file, data_root) for file in parquet_files(self.path)]
        return hashlib.sha256(repr(digests).encode()).hexdigest()

    def images(self, row_of: RowOf) -> Iterator[Found]:
        """Yields the images of items that have a row.

        Raises:
            DataError: a file is damaged, or has no column of ids or not one of images.
        """
        for file in parquet_files(self.path):
            yield from self._of_file(file, row_of)

    def _of_file(self, path: Path, row_of: RowOf) -> Iterator[Found]:
        import pyarrow as pa

        with open_parquet(path, buffer_size=_BUFFER_BYTES) as file:
            key, pixels = self._key(file.schema_arrow, path), _image_column(file.schema_arrow, path)
            number = 0
            try:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[key, pixels]):
                    for name, value in zip(*(batch.column(c) for c in (key, pixels)), strict=True):
                        number += 1
                        row = row_of(_name(name.as_py())) if name.is_valid else -1
                        if row >= 0:
                            yield Found(row, f"{path.name}, row {number}", held(partial(_bytes, value)))
            except (pa.ArrowInvalid, OSError) as error:
                where = f"{path}, after row {number}: {error}"
                raise DataError(
                    "This parquet file is damaged.", where=where, fix="write or copy it again"
                ) from error

    def names(self) -> Iterator[str]:
        """Yields the names that images go by."""
        for path in parquet_files(self.path):
            with open_parquet(path) as file:
                for batch in file.iter_batches(columns=[self._key(file.schema_arrow, path)]):
                    yield from map(_name, batch.column(0).to_pylist())

    def _key(self, schema: Any, path: Path) -> str:
        for name in self.columns:
            if name in schema.names:
                return name
        raise DataError(
            f"There is no column of item ids called {' or '.join(map(repr, self.columns))}.",
            where=f"{path}, which has the columns {', '.join(schema.names[:20])}",
            nearest=nearest_name(self.columns[0], schema.names),
            fix="dataset.image_item=COLUMN",
        )


def _name(value: Any) -> str:
    """Returns an id as a file's name would have it; whole numbers are floats where one was missing."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _image_column(schema: Any, path: Path) -> str:
    """Returns the only column that holds bytes, `image` where there are more."""
    found = [field.name for field in schema if _holds_bytes(field.type)]
    if len(found) == 1 or "image" in found:
        return str("image" if "image" in found else found[0])
    raise DataError(
        f"There are {len(found)} columns of bytes, and images are in one."
        if found
        else "No column is bytes.",
        where=f"{path}, which has {', '.join(f'{field.name}: {field.type}' for field in schema)[:300]}",
        fix="write images' files as they are (JPEG, PNG) into one column of type binary, called image",
    )


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _bytes(value: Any) -> bytes:
    data = value.as_py()
    found = (data.get("bytes") if isinstance(data, dict) else data) or b""
    check_bytes(len(found))
    return bytes(found)
