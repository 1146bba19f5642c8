"""A dataset by its settings: found or fetched, prepared once, opened memory-mapped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from effrec_cli import registry
from effrec_cli.data import cache
from effrec_cli.data.atomic import locked, new_folder
from effrec_cli.data.fetch import megabytes
from effrec_cli.data.prepare import content_hash, prepare, recipe
from effrec_cli.data.sampling.folder import write_sample
from effrec_cli.data.sampling.sample import sampled_hash
from effrec_cli.data.source import Say, Source
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.sample import SampleConfig, is_sampled

READY_MADE = "ready_made"
"""A source of a folder that is prepared already may carry this attribute: the folder."""
BYTES_TO_READ = "bytes_to_read"
"""A source that reads files may carry this attribute: their size."""
_SMALL_BYTES = 100_000


def open_source(config: DatasetConfig, data_root: Path) -> Source:
    """Returns the reader of a dataset's family."""
    return registry.implementation("datasets", config.family)(config, data_root)


def prepared_folder(config: DatasetConfig, data_root: Path, source: Source) -> Path:
    """Returns where the prepared data of these settings belong; the raw data must be there."""
    ready_made = getattr(source, READY_MADE, None)
    if isinstance(ready_made, Path):
        return ready_made
    key = content_hash(recipe(config, source.fingerprint()))
    if is_sampled(config.sample):
        key = sampled_hash(key, config.sample)
    return data_root / "prepared" / f"{config.name}-{key[:12]}"


def load(config: DatasetConfig, data_root: Path, say: Say) -> RecData:
    """Returns the prepared dataset, fetching and preparing what is missing.

    Args:
        config: the dataset's settings.
        data_root: where raw and prepared data live.
        say: tells the user one line.

    Raises:
        ConfigError: settings contradict each other or the data.
        DataError: the raw data cannot be had or are malformed, or a sample keeps none of them.
        EnvironmentFault: the disk is full or may not be written, or a package is missing.
    """
    source = open_source(config, data_root)
    source.ensure(say)
    folder = prepared_folder(config, data_root, source)
    if getattr(source, READY_MADE, None) is not None:
        return load_prepared(folder)
    with suppress(cache.BadCache):
        return cache.open_cache(folder)
    if not is_sampled(config.sample):
        return _build(config, folder, say, lambda aside: prepare(source, config, aside, say), _size(source))
    parent = load(replace(config, sample=SampleConfig()), data_root, say)

    def draw(aside: Path) -> None:
        write_sample(parent, config.sample, aside, link=True)

    return _build(config, folder, say, draw, f", {_share(config.sample)} of its training rows")


def _share(sample: SampleConfig) -> str:
    """Returns a sample in words."""
    return f"{100 * sample.rate:g} % ({sample.mode})"


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


def _build(config: DatasetConfig, folder: Path, say: Say, fill: Callable[[Path], None], what: str) -> RecData:
    """Fills `folder` under a lock, unless another process has done so in the meantime."""
    lock = folder.parent / f".{folder.name}.lock"
    with locked(lock, say, f"preparing {config.name}"):
        try:
            return cache.open_cache(folder)
        except cache.BadCache as error:
            if folder.exists():
                say(f"The prepared data in {folder} are damaged ({error}); preparing them again.")
        say(f"Preparing {config.name}{what} into {folder}")
        with new_folder(folder) as aside:
            fill(aside)
        return load_prepared(folder)
