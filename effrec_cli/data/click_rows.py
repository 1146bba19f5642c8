"""Which labelled rows are trained on: drawn by a hash of what they say, never from validation or test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.clicks import Clicks
from effrec_cli.data.feature_columns import BLOCK_ROWS
from effrec_cli.data.feature_kinds import MISSING
from effrec_cli.data.sampling.hashing import UInt64, below, id_digests, key_of, told_apart
from effrec_cli.data.shuffle import mix
from effrec_cli.data.types import Int64
from effrec_cli.errors import DataError
from effrec_cli.schema.sample import SampleConfig

_ROW, _ZEROS = 0x726F77, 0x7A65726F73
"""Tell the hash of rows, and the draw among those labelled 0, from others."""


@dataclass(frozen=True)
class Kept:
    """Training rows that are kept.

    Attributes:
        rows: int64 [n], ascending.
        weights: float32 [n] of mean 1, or None where all weigh the same.
        base_rate: the share of ones among them, by weights.
    """

    rows: Int64
    weights: NDArray[np.float32] | None
    base_rate: float


def keep_rows(
    clicks: Clicks, sample: SampleConfig, negative_rate: float = 1.0, *, weighted: bool = False
) -> Kept:
    """Returns the training rows that a sample keeps, and of those labelled 0 a share.

    Both draws go by a hash of seed and row, so that neither the order of a file nor parts decide; with one
    seed a smaller rate keeps part of what a larger one does. Memory: eight bytes for each training row.

    Args:
        clicks: the labelled rows.
        sample: of mode `uniform` or `exact`.
        negative_rate: w, the probability of a row labelled 0 to be kept.
        weighted: whether these then weigh 1 / w, before all are brought to mean 1.

    Raises:
        DataError: no row labelled 1, or none labelled 0, is left.
    """
    rows = clicks.of_part("train")
    if sample.rate < 1 or negative_rate < 1:
        hashes = told_apart(click_hashes(clicks, rows, sample.seed))
        keep = _drawn(hashes, sample)
        keep &= (clicks.labels[rows] == 1) | below(mix(hashes ^ key_of(sample.seed, _ZEROS)), negative_rate)
        rows = rows[keep]
    ones = clicks.labels[rows] == 1
    if not 0 < int(ones.sum()) < len(rows):
        raise DataError(
            f"Of {len(rows):,} kept rows {int(ones.sum()):,} are labelled 1: there is nothing to learn.",
            where=f"dataset {clicks.name}, method.sample.rate={sample.rate:g}",
            fix="a larger method.sample.rate, or another method.sample.seed",
        )
    weights = np.where(ones, 1, 1 / negative_rate) if weighted and negative_rate < 1 else np.ones(len(rows))
    weights /= weights.mean()
    even = not weighted or negative_rate == 1
    return Kept(
        rows, None if even else weights.astype(np.float32), float(weights[ones].sum() / weights.sum())
    )


def _drawn(hashes: UInt64, sample: SampleConfig) -> NDArray[np.bool_]:
    """Returns which rows a sample keeps, bool [n]."""
    if sample.mode != "exact":
        return below(hashes, sample.rate)
    keep = np.zeros(len(hashes), dtype=bool)
    keep[np.argsort(hashes, kind="stable")[: round(sample.rate * len(hashes))]] = True
    return keep


def click_hashes(clicks: Clicks, rows: Int64, seed: int) -> UInt64:
    """Returns a hash of what each of some rows says, uint64 [n]; rows that are alike have one hash."""
    ids = (id_digests(clicks.user_ids), id_digests(clicks.item_ids)) if clicks.users is not None else None
    found = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        found[some] = _hashed(clicks, rows[some], ids, key_of(seed, _ROW))
    return found


def _hashed(clicks: Clicks, rows: Int64, ids: tuple[UInt64, UInt64] | None, key: np.uint64) -> UInt64:
    """Returns the hashes of a block of rows: label, time, ids, numbers and values folded in this order."""
    folded = mix(clicks.labels[rows].astype(np.uint64) ^ key)
    if clicks.times is not None:
        folded = mix(folded ^ np.ascontiguousarray(clicks.times[rows]).view(np.uint64))
    if ids is not None and clicks.users is not None and clicks.items is not None:
        folded = mix(folded ^ ids[0][clicks.users[rows]])
        folded = mix(folded ^ ids[1][clicks.items[rows]])
    bits = np.ascontiguousarray(clicks.dense[rows]).view(np.uint32)
    for column in bits.T:
        folded = mix(folded ^ column.astype(np.uint64))
    codes = clicks.categories[rows]
    for at, values in enumerate(clicks.values):
        said = np.concatenate([np.array([MISSING], np.uint64), values])[codes[:, at]]
        folded = mix(folded ^ said)
    return folded
