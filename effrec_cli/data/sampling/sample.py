"""A dataset with fewer training rows: all that is judged by stays, and the kept rows stand behind it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.sampling.modes import decide
from effrec_cli.data.sampling.rows import BLOCK_ROWS, Rows
from effrec_cli.data.types import Int64, RecData, Sequences
from effrec_cli.errors import ConfigError
from effrec_cli.schema.sample import SampleConfig, sample_settings


@dataclass(frozen=True)
class Kept:
    """The rows that a sample keeps, but for the rows themselves.

    Attributes:
        positions: int64 [k] in `Sequences.items` of the parent, ascending.
        train_start: int64 [num_users], where each user's kept rows begin behind all rows of the parent.
        train_end: int64 [num_users], where they end.
        weights: float32 [k], or None where all weigh the same.
        told: what `RecData.sample` says.
    """

    positions: Int64
    train_start: Int64
    train_end: Int64
    weights: NDArray[np.float32] | None
    told: dict[str, Any]


def sampled_hash(parent: str, config: SampleConfig, *, inverse: bool = False) -> str:
    """Returns the content hash of a sample (or of what it leaves) of the dataset whose hash is `parent`."""
    ingredients = {
        "parent": parent,
        "sample": sample_settings(config),
        **({"inverse": True} if inverse else {}),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def keep(data: RecData, config: SampleConfig, block_rows: int = BLOCK_ROWS) -> Kept:
    """Returns which training rows of a dataset a sample keeps.

    Memory: a byte for each training row, eight for each kept one, user and item, and a block; `forgetting`
    takes more.

    Args:
        data: the dataset.
        config: the sample's settings.
        block_rows: training rows that are looked at at a time.

    Raises:
        ConfigError: the dataset is a sample already, or the mode cannot keep so few.
    """
    if data.sample is not None:
        raise ConfigError(
            "These data are a sample already.",
            where=f"dataset.sample.rate={config.rate:g}",
            fix="sample the whole dataset at the smaller rate, or leave dataset.sample out",
        )
    rows = Rows(data, config.seed, block_rows)
    decision = decide(rows, config)
    found, sizes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for block in rows:
        kept = decision.keep[block.rows]
        found.append(block.positions[kept])
        sizes.append(block.of_users(kept))
    positions, of_users = np.concatenate(found), np.concatenate(sizes)
    end = data.num_interactions + np.cumsum(of_users)
    by_item = decision.item_weights
    weights = None if by_item is None else by_item[data.sequences.items[positions]].astype(np.float32)
    told = _told(data, config, positions, of_users, weights)
    return Kept(positions, end - of_users, end, weights, told)


def _told(
    data: RecData, config: SampleConfig, positions: Int64, kept: Int64, weights: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Returns what a sample says of itself."""
    columns = (data.sequences.items, data.sequences.times, data.sequences.ratings)
    row_bytes = sum(column.itemsize for column in columns if column is not None)
    of_items = np.bincount(data.sequences.items[positions], minlength=data.num_items)
    return {
        "parent": data.content_hash,
        **sample_settings(config),
        "rows": data.num_train,
        "rows_kept": len(positions),
        "users": int(np.count_nonzero(data.train_end > data.train_start)),
        "users_kept": int(np.count_nonzero(kept)),
        "items": int(np.count_nonzero(data.train_counts())),
        "items_kept": int(np.count_nonzero(of_items)),
        "bytes": row_bytes * data.num_train,
        "bytes_kept": row_bytes * len(positions) + (0 if weights is None else weights.nbytes),
    }


def left_by(data: RecData, kept: Kept) -> Kept:
    """Returns the training rows that a sample does not keep, all of one weight.

    Memory: seventeen bytes for each training row.
    """
    from effrec_cli.evaluation.blocks import flat_ranges  # with torch, which is not imported for less

    positions, users = flat_ranges(np.asarray(data.train_start), np.asarray(data.train_end))
    mask = np.ones(len(positions), dtype=bool)
    mask[np.searchsorted(positions, kept.positions)] = False
    of_users = np.bincount(users[mask], minlength=data.num_users)
    end = data.num_interactions + np.cumsum(of_users)
    return replace(kept, positions=positions[mask], train_start=end - of_users, train_end=end, weights=None)


def sample(data: RecData, config: SampleConfig) -> RecData:
    """Returns the dataset with the training rows that a sample keeps, in memory.

    Histories, cases and ids are those of `data`; `unsampled()` gives its training rows back.

    Args:
        data: the dataset.
        config: the sample's settings.

    Raises:
        ConfigError: the dataset is a sample already, or the mode cannot keep so few.
    """
    return _trained_on(data, keep(data, config), sampled_hash(data.content_hash, config))


def sample_and_rest(data: RecData, config: SampleConfig) -> tuple[RecData, RecData]:
    """Returns what `sample` does, and the dataset with the rows that this sample does not keep.

    Raises:
        ConfigError: as of `sample`, or the sample leaves no row.
    """
    kept = keep(data, config)
    left = left_by(data, kept)
    if not len(left.positions):
        raise ConfigError(
            "The sample keeps every training row: none is left to factorise.",
            where=f"method.sample.rate={config.rate:g}",
            fix="method.sample.rate=0.5, or method.factorise=all",
        )
    digest, rest = (sampled_hash(data.content_hash, config, inverse=inverse) for inverse in (False, True))
    return _trained_on(data, kept, digest), _trained_on(data, left, rest)


def _trained_on(data: RecData, kept: Kept, digest: str) -> RecData:
    """Returns the dataset with some of its training rows, which stand behind all rows."""
    held = data.sequences

    def extended(column: NDArray[Any] | None) -> Any:
        return None if column is None else np.concatenate([column, column[kept.positions]])

    return replace(
        data,
        content_hash=digest,
        sequences=Sequences(held.offsets, *map(extended, (held.items, held.times, held.ratings))),
        train_start=kept.train_start,
        train_end=kept.train_end,
        full_train_end=data.train_end,
        train_weights=kept.weights,
        sample=kept.told,
        folder=None,
    )
