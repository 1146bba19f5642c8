"""A sample of a parquet file of training rows, which is read once and never held (papers/cadc 4.2.2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from effrec_cli.data.atomic import disk_faults, locked, make_folder, read_json, write_json
from effrec_cli.data.blocks import BadRows, Column
from effrec_cli.data.parquet import head, open_parquet, parquet_files, read_batch
from effrec_cli.data.sampling.hashing import Bool, below, id_digests, row_hashes, user_hashes
from effrec_cli.data.sniff import id_kind, time_kind
from effrec_cli.data.source import Say
from effrec_cli.durable import sync_file, sync_folder
from effrec_cli.errors import ConfigError, DataError, nearest_name
from effrec_cli.schema.sample import SampleConfig, sample_settings

MODES = ("uniform", "user")
"""What a row decides alone; the other modes need to know of other rows."""
METADATA = b"effrec.sample"
"""The key in a parquet's metadata under which it says what it is a sample of, as JSON."""
_BATCH_ROWS = 1 << 16
_PART_ROWS = 1 << 20
_GROUP_ROWS = 1 << 17
_READ_BYTES = 1 << 20
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Names:
    """Which columns say what a row is.

    Attributes:
        user: column of user ids.
        item: column of item ids.
        time: column of times; None where there is none.
    """

    user: str
    item: str
    time: str | None = None


@dataclass(frozen=True)
class Part:
    """Consecutive row groups of one file, whose kept rows are written in one go.

    Attributes:
        file: the file.
        first: its first row group.
        last: the row group behind its last.
        rows: rows in it.
        before: rows of the file before it.
    """

    file: Path
    first: int
    last: int
    rows: int
    before: int


@dataclass
class Streamed:
    """What came of it.

    Attributes:
        rows: read.
        rows_kept: written.
        largest: rows held at a time at most, while reading.
        parts_read: parts that were read this time, and not found from an earlier try.
        bytes: of the file written.
    """

    rows: int = 0
    rows_kept: int = 0
    largest: int = 0
    parts_read: int = 0
    bytes: int = 0


def stream(
    source: Path, target: Path, names: Names, config: SampleConfig, say: Say, part_rows: int = _PART_ROWS
) -> Streamed:
    """Writes the kept rows of a parquet file, all columns of them, to `target`: whole or not at all.

    Rows of one part after the other are read in batches; what a part keeps is put on the disk before the next
    is begun, so that a job that was stopped goes on where it was and ends with the same bytes. Decisions are
    those of `sample` over the same rows, prepared; but rows alike in user, item and time are kept or dropped
    together, since telling them apart needs all rows of a user at hand.

    Args:
        source: the file, or a folder of such files in the order of their names.
        target: the new file.
        names: its columns.
        config: the sample's settings.
        say: tells the user one line.
        part_rows: rows of a part, at least; it ends where a row group does.

    Raises:
        ConfigError: the mode needs to know of other rows, `target` is there, or `source` is not.
        DataError: a file is damaged, a column is missing, or a row is malformed.
        EnvironmentFault: the disk is full or may not be written, or pyarrow is missing.
    """
    _refuse(source, target, config)
    parts, done = plan(source, part_rows), Streamed()
    columns = _columns(parts[0].file, names)
    folder = target.with_name(f".{target.name}.parts")
    make_folder(folder)
    with locked(folder / ".lock", say, f"sampling into {target}"):
        _refuse(source, target, config)
        _begin(folder, source, names, config, parts)
        job = _Job(columns, config, done)
        for number, part in enumerate(parts):
            written = folder / f"part-{number:06}.parquet"
            if not written.exists():
                job.write(part, written)
                say(f"  part {number + 1} of {len(parts)} sampled")
        metadata = {**sample_settings(config), "columns": asdict(names), "source": source.name}
        _join(folder, len(parts), target, {**metadata, "rows": sum(part.rows for part in parts)})
        shutil.rmtree(folder)
    done.rows = sum(part.rows for part in parts)
    done.bytes = target.stat().st_size
    with open_parquet(target) as file:
        done.rows_kept = file.metadata.num_rows
    return done


def _refuse(source: Path, target: Path, config: SampleConfig) -> None:
    if not source.exists():
        raise ConfigError("There is no such file.", where=f"--parquet {source}", fix="--parquet FILE")
    if config.mode not in MODES:
        raise ConfigError(
            f"dataset.sample.mode={config.mode} needs to know of other rows than the one it decides on.",
            where=f"--parquet {source}",
            fix=f"dataset.sample.mode={' or '.join(MODES)}; or prepare the data: effrec data sample table "
            f"dataset.path={source} --out FOLDER",
        )
    if target.exists():
        raise ConfigError("There is a file already.", where=f"--out {target}", fix="--out another FILE")


def plan(source: Path, part_rows: int) -> list[Part]:
    """Returns the parts of a file, or of a folder's files: row groups together until they have the rows.

    Raises:
        DataError: a file is damaged, their columns differ, or there is no row.
    """
    parts: list[Part] = []
    schemas = []
    for path in parquet_files(source):
        with open_parquet(path, _READ_BYTES) as file:
            schemas.append(file.schema_arrow)
            sizes = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
        parts += _parts_of(path, sizes, part_rows)
        if not schemas[-1].equals(schemas[0]):
            raise DataError("Its columns are not those of the first file.", where=str(path))
    if not sum(part.rows for part in parts):
        raise DataError("The file has no rows.", where=str(source), fix="check that it was written whole")
    return parts


def _parts_of(path: Path, sizes: Sequence[int], part_rows: int) -> Iterator[Part]:
    first = before = rows = 0
    for at, size in enumerate(sizes):
        rows += size
        if rows >= part_rows or at == len(sizes) - 1:
            yield Part(path, first, at + 1, rows, before)
            first, before, rows = at + 1, before + rows, 0


def _begin(folder: Path, source: Path, names: Names, config: SampleConfig, parts: Sequence[Part]) -> None:
    """Empties the folder of parts, unless they are of this very job."""
    states = {str(path): path.stat() for path in parquet_files(source)}
    job = {
        "sample": sample_settings(config),
        "columns": asdict(names),
        "files": {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
        "parts": [[str(part.file), part.first, part.last] for part in parts],
    }
    if read_json(folder / _MANIFEST) == json.loads(json.dumps(job)):
        return
    for old in folder.glob("*part-*"):
        old.unlink()
    write_json(folder / _MANIFEST, job)


def _columns(path: Path, names: Names) -> tuple[list[Column], int]:
    """Returns the columns to read, their kinds judged as those of a table are, and the ticks of a second."""
    given = {role: name for role, name in asdict(names).items() if name is not None}
    with open_parquet(path, _READ_BYTES) as file:
        _require(given, file.schema_arrow.names, path)
    kinds = {role: id_kind(head(path, given[role]), "auto") for role in ("user", "item")}
    ticks = 1
    if names.time is not None:
        kinds["time"], ticks = time_kind(head(path, names.time), "auto")
    return [Column(role, name, kinds[role]) for role, name in given.items()], ticks


def _require(given: dict[str, str], names: Sequence[str], path: Path) -> None:
    for role, name in given.items():
        if name not in names:
            raise DataError(
                f"There is no column called '{name}'.",
                where=f"{path}, which has the columns {', '.join(names[:20])}",
                nearest=nearest_name(name, names),
                fix=f"--{role} COLUMN",
            )


class _Job:
    """Reads parts and writes what of them is kept.

    Args:
        columns: what says what a row is, and the ticks of a second.
        config: the sample's settings.
        done: is told what was held and read.
    """

    def __init__(self, columns: tuple[list[Column], int], config: SampleConfig, done: Streamed) -> None:
        self.columns, self.ticks = columns
        self.config, self.done = config, done

    def write(self, part: Part, target: Path) -> None:
        """Writes what is kept of a part."""
        with open_parquet(part.file, _READ_BYTES) as file:
            groups = list(range(part.first, part.last))
            batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups)
            _write(self._kept(batches, part), file.schema_arrow, target)
        self.done.parts_read += 1

    def _kept(self, batches: Iterator[Any], part: Part) -> Iterator[Any]:
        import pyarrow as pa

        row = part.before + 1
        for batch in batches:
            self.done.largest = max(self.done.largest, len(batch))
            yield batch.filter(pa.array(self._decide(batch, part.file, row)))
            row += len(batch)

    def _decide(self, batch: Any, path: Path, row: int) -> Bool:
        try:
            block = read_batch(batch, path, row, self.columns, BadRows("error"))
        except DataError as malformed:
            malformed.fix = "mend the row, or leave it out of the file"
            raise
        users, times, config = id_digests(block["user"]), block.get("time"), self.config
        if config.mode == "user":
            return below(user_hashes(config.seed, users), config.rate)
        seconds = None if times is None else np.asarray(times // self.ticks, dtype=np.int64)
        return below(row_hashes(config.seed, users, id_digests(block["item"]), seconds), config.rate)


def _join(folder: Path, parts: int, target: Path, told: dict[str, Any]) -> None:
    """Writes all parts into one file that says what it is a sample of."""
    files = [folder / f"part-{number:06}.parquet" for number in range(parts)]
    with open_parquet(files[0]) as file:
        schema = file.schema_arrow
    schema = schema.with_metadata({**(schema.metadata or {}), METADATA: json.dumps(told).encode()})
    _write(chain.from_iterable(map(_batches, files)), schema, target)


def _batches(path: Path) -> Iterator[Any]:
    with open_parquet(path, _READ_BYTES) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS)


def _write(batches: Iterator[Any], schema: Any, target: Path) -> None:
    """Writes batches as row groups of a useful size; the file takes its place once it is on the disk."""
    import pyarrow.parquet as pq

    aside = target.with_name(f".writing-{target.name}")
    with disk_faults(target):
        with pq.ParquetWriter(aside, schema) as writer:
            for table in _gathered(batches, schema):
                writer.write_table(table)
        sync_file(aside)
        aside.replace(target)
        sync_folder(target.parent)


def _gathered(batches: Iterator[Any], schema: Any) -> Iterator[Any]:
    """Yields tables of `_GROUP_ROWS` rows or a little more, the last with what is left."""
    import pyarrow as pa

    held: list[Any] = []
    for batch in batches:
        held.append(batch.replace_schema_metadata(schema.metadata))
        if sum(map(len, held)) >= _GROUP_ROWS:
            yield pa.Table.from_batches(held, schema)
            held = []
    yield pa.Table.from_batches(held, schema)
