"""A sample in a folder of the user's: the dataset with fewer training rows, and these as parquet."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from effrec_cli.data import cache
from effrec_cli.data.atomic import disk_faults, locked, new_folder
from effrec_cli.data.blocks import require_arrow
from effrec_cli.data.sampling.folder import kept_columns, write_sample
from effrec_cli.data.sampling.sample import sampled_hash
from effrec_cli.data.sampling.stream import METADATA
from effrec_cli.data.source import Say
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError
from effrec_cli.schema.sample import SampleConfig

ROWS = "train.parquet"
"""The kept training rows, by raw ids."""


def export(parent: RecData, config: SampleConfig, folder: Path, data_root: Path, say: Say) -> RecData:
    """Writes a sample of a prepared dataset into a folder of its own, and returns it.

    The folder needs nothing beside it: histories and cases are in it, so `dataset=sample dataset.path=FOLDER`
    trains and is judged as on its parent. It appears whole or not at all.

    Args:
        parent: the whole dataset, opened from its prepared folder.
        config: the sample's settings.
        folder: where it goes; the very same sample may be there already.
        data_root: where the lock lies.
        say: tells the user one line.

    Raises:
        ConfigError: something else is in the folder, or the sample cannot be taken.
        DataError: the sample keeps no row.
        EnvironmentFault: the disk is full or may not be written, or pyarrow is missing.
    """
    require_arrow()
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
    with locked(data_root / "prepared" / f".sample-{name}.lock", say, f"sampling into {folder}"):
        if not _is_there(folder, sampled_hash(parent.content_hash, config)):
            say(f"Sampling {parent.name} into {folder}")
            with new_folder(folder) as aside:
                write_sample(parent, config, aside, link=False)
                write_rows(aside / ROWS, cache.open_cache(aside))
    return cache.open_cache(folder)


def _is_there(folder: Path, digest: str) -> bool:
    """Returns whether the folder holds the sample with this content hash; an empty one holds nothing."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    with suppress(cache.BadCache, OSError):
        if cache.open_cache(folder).content_hash == digest:
            return True
    raise ConfigError("Something else is there already.", where=f"--out {folder}", fix="--out another FOLDER")


def write_rows(path: Path, data: RecData) -> None:
    """Writes the kept training rows of a sample as parquet, with the columns of `kept_columns`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (
        pa.table({name: pa.array(column) for name, column in rows.items()}) for rows in kept_columns(data)
    )
    first = next(tables)
    schema = first.schema.with_metadata({METADATA: json.dumps(data.sample).encode()})
    with disk_faults(path), pq.ParquetWriter(path, schema) as writer:
        writer.write_table(first.cast(schema))
        for table in tables:
            writer.write_table(table.cast(schema))
