"""A sample as a prepared folder: what it shares with its parent is linked or copied, the rest written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data import cache
from effrec_cli.data.atomic import disk_faults
from effrec_cli.data.sampling.sample import Kept, keep, sampled_hash
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.schema.sample import SampleConfig

_ROWS = 1 << 20
"""Rows that are copied at a time."""
_COLUMNS = ("items", "times", "ratings")


def write_sample(parent: RecData, config: SampleConfig, folder: Path, *, link: bool) -> None:
    """Writes the sample of a prepared dataset into `folder`, manifest last.

    Args:
        parent: the whole dataset, opened from its prepared folder.
        config: the sample's settings.
        folder: a new folder.
        link: whether files that are the parent's become links to them, which take no space.

    Raises:
        ConfigError: the dataset is a sample already, or the mode cannot keep so few.
        DataError: the sample keeps no row.
    """
    assert parent.folder is not None
    kept, manifest = keep(parent, config), cache.read_manifest(parent.folder)
    if not len(kept.positions):
        raise DataError(
            f"The sample keeps none of {parent.num_train:,} training rows.",
            where=f"dataset.sample.rate={config.rate:g}",
            fix="a larger dataset.sample.rate, or another dataset.sample.seed",
        )
    entries = dict(manifest.pop("arrays"))
    for name in entries:
        if name not in (*_COLUMNS, "train_end"):
            _share(parent.folder / f"{name}.npy", folder, link=link)
    for name in (name for name in _COLUMNS if name in entries):
        _extend(folder / f"{name}.npy", getattr(parent.sequences, name), kept)
        entries[name] = cache.entry_of(folder / f"{name}.npy")
    entries.update(cache.write_arrays(folder, _ends(parent, kept)))
    own = {"content_hash": sampled_hash(parent.content_hash, config), "sample": kept.told}
    cache.write_manifest(folder, {**manifest, **own, "arrays": entries})


def _ends(parent: RecData, kept: Kept) -> dict[str, NDArray[Any] | None]:
    """Returns the arrays that a sample has beside its parent's."""
    return {
        "train_start": kept.train_start,
        "train_end": kept.train_end,
        "full_train_end": np.array(parent.train_end),
        "train_weights": kept.weights,
    }


def _share(file: Path, folder: Path, *, link: bool) -> None:
    """Puts a parent's file into the folder: a second name of it where `link` is asked for and can be had."""
    with disk_faults(folder):
        if link:
            try:
                os.link(file, folder / file.name)
                return
            except OSError:  # another disk, or one without links
                pass
        shutil.copyfile(file, folder / file.name)


def _extend(path: Path, column: NDArray[Any], kept: Kept) -> None:
    """Writes a column and behind it the kept rows of it, some at a time."""
    shape = (len(column) + len(kept.positions),)
    with disk_faults(path):
        target = np.lib.format.open_memmap(path, mode="w+", dtype=column.dtype, shape=shape)
        for first in range(0, len(column), _ROWS):
            last = min(first + _ROWS, len(column))
            target[first:last] = column[first:last]
        for first in range(0, len(kept.positions), _ROWS):
            some = kept.positions[first : first + _ROWS]
            target[len(column) + first : len(column) + first + len(some)] = column[some]
        target.flush()


def kept_columns(data: RecData) -> Iterator[dict[str, NDArray[Any]]]:
    """Yields the training rows of a sample, some at a time, by raw ids: user, item, time, rating, weight.

    What the dataset has not is left out.
    """
    sequences, first = data.sequences, data.num_interactions
    owner_ends = np.asarray(data.train_end)
    for low in range(first, len(sequences.items), _ROWS):
        some = slice(low, min(low + _ROWS, len(sequences.items)))
        users = np.searchsorted(owner_ends, np.arange(some.start, some.stop), side="right")
        columns = {
            "user": data.users.ids[users],
            "item": data.items.ids[sequences.items[some]],
            "time": None if sequences.times is None else sequences.times[some],
            "rating": None if sequences.ratings is None else sequences.ratings[some],
            "weight": None
            if data.train_weights is None
            else data.train_weights[some.start - first : some.stop - first],
        }
        yield {name: np.asarray(column) for name, column in columns.items() if column is not None}
