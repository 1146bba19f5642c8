"""A dataset by its settings: found or fetched, prepared once, opened memory-mapped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from effrec_cli import registry
from effrec_cli.data import cache
from effrec_cli.data.atomic import locked, new_folder
from effrec_cli.data.fetch import megabytes
from effrec_cli.data.prepare import content_hash, prepare, recipe
from effrec_cli.data.source import Say, Source
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import DatasetConfig

BYTES_TO_READ = "bytes_to_read"
"""A source that reads files may carry this attribute: their size."""
_SMALL_BYTES = 100_000


def open_source(config: DatasetConfig, data_root: Path) -> Source:
    """Returns the reader of a dataset's family."""
    return registry.implementation("datasets", config.family)(config, data_root)


def prepared_folder(config: DatasetConfig, data_root: Path, source: Source) -> Path:
    """Returns where the prepared data of these settings belong; the raw data must be there."""
    key = content_hash(recipe(config, source.fingerprint()))
    return data_root / "prepared" / f"{config.name}-{key[:12]}"


def load(config: DatasetConfig, data_root: Path, say: Say) -> RecData:
    """Returns the prepared dataset, fetching and preparing what is missing.

    Args:
        config: the dataset's settings.
        data_root: where raw and prepared data live.
        say: tells the user one line.

    Raises:
        DataError: the raw data cannot be had or are malformed.
        EnvironmentFault: the disk is full or may not be written, or a package is missing.
    """
    source = open_source(config, data_root)
    source.ensure(say)
    folder = prepared_folder(config, data_root, source)
    with suppress(cache.BadCache):
        return cache.open_cache(folder)
    return _build(source, config, folder, say)


def load_prepared(folder: Path) -> RecData:
    """Returns the prepared dataset in `folder`.

    Raises:
        DataError: it is not a whole prepared folder.
    """
    try:
        return cache.open_cache(folder)
    except cache.BadCache as error:
        raise DataError(
            f"This is not a whole prepared dataset: {error}.",
            where=str(folder),
            fix="prepare it again by training on it, or by `effrec data describe NAME`",
        ) from error


def _size(source: Source) -> str:
    """Returns how much there is to read, for a source that reads files of some size."""
    size = getattr(source, BYTES_TO_READ, 0)
    return f" ({megabytes(size)} to read)" if size > _SMALL_BYTES else ""


def _build(source: Source, config: DatasetConfig, folder: Path, say: Say) -> RecData:
    """Prepares into `folder` under a lock, unless another process has done so in the meantime."""
    lock = folder.parent / f".{folder.name}.lock"
    with locked(lock, say, f"preparing {config.name}"):
        try:
            return cache.open_cache(folder)
        except cache.BadCache as error:
            if folder.exists():
                say(f"The prepared data in {folder} are damaged ({error}); preparing them again.")
        say(f"Preparing {config.name}{_size(source)} into {folder}")
        with new_folder(folder) as aside:
            prepare(source, config, aside, say)
        return load_prepared(folder)
