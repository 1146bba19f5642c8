"""Which training rows each mode of a sample keeps (papers/cadc section 4.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.sampling.hashing import Bool, UInt64, below, user_hashes
from effrec_cli.data.sampling.propensity import keep_probabilities
from effrec_cli.data.sampling.rows import Rows
from effrec_cli.data.types import Int64
from effrec_cli.schema.sample import SampleConfig

ITEM_ROWS = 1 << 22
"""Rows whose hashes are held at once to find each item's smallest."""


@dataclass(frozen=True)
class Decision:
    """What a sample keeps.

    Attributes:
        keep: bool [num_train], one for each training row in order.
        item_weights: float64 [num_items], by which a kept row of an item counts; None where all count alike.
    """

    keep: Bool
    item_weights: NDArray[np.float64] | None = None


def decide(rows: Rows, config: SampleConfig) -> Decision:
    """Returns what the sample of these rows keeps.

    Raises:
        ConfigError: the mode cannot keep so few.
    """
    return _MODES[config.mode](rows, config)


def _uniform(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps each row with probability `rate`, on its own."""
    keep = _nothing(rows)
    for block in rows:
        keep[block.rows] = below(block.hashes, config.rate)
    return Decision(keep)


def _exact(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps the round(rate n) rows with the smallest hashes."""
    keep, wanted = _nothing(rows), round(config.rate * len(rows))
    if wanted:
        largest = _smallest(rows, wanted)
        for block in rows:
            keep[block.rows] = block.hashes <= largest
    return Decision(keep)


_BUCKET_BITS = np.uint64(44)
"""A hash shifted by so many bits is its bucket: 2^20 of them."""


def _smallest(rows: Rows, count: int) -> np.uint64:
    """Returns the `count`-th smallest hash: buckets are counted, and one bucket's hashes sorted."""
    sizes = np.zeros(1 << 20, dtype=np.int64)
    for block in rows:
        sizes += np.bincount((block.hashes >> _BUCKET_BITS).astype(np.int64), minlength=len(sizes))
    upto = np.cumsum(sizes)
    bucket = int(np.searchsorted(upto, count))
    inside = [block.hashes[block.hashes >> _BUCKET_BITS == np.uint64(bucket)] for block in rows]
    place = count - 1 - int(upto[bucket] - sizes[bucket])
    return np.uint64(np.sort(np.concatenate(inside))[place])


def quotas(counts: Int64, rate: float) -> Int64:
    """Returns max(1, round(rate n)) of each n, and 0 of 0; int64 like `counts`."""
    return np.minimum(counts, np.maximum(1, np.rint(rate * counts))).astype(np.int64)


def _per_user(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps of each user's n rows the max(1, round(rate n)) with the smallest hashes."""
    return Decision(smallest_of_users(rows, quotas(rows.counts, config.rate)))


def smallest_of_users(rows: Rows, quota: Int64, keys: NDArray[np.float64] | None = None) -> Bool:
    """Returns which rows are among the first so many of their user, bool [num_train].

    Args:
        rows: all training rows.
        quota: int64 [num_users].
        keys: float64 [num_train], what orders rows before their hashes do; None for the hashes alone.
    """
    keep = _nothing(rows)
    for block in rows:
        key = () if keys is None else (keys[block.rows],)
        kept = np.zeros(len(block), dtype=bool)
        kept[np.lexsort((block.hashes, *key, block.users))] = block.in_user < quota[block.users]
        keep[block.rows] = kept
    return keep


def _temporal(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps of each user's n rows the newest max(1, round(rate n))."""
    keep, oldest = _nothing(rows), rows.counts - quotas(rows.counts, config.rate)
    for block in rows:
        keep[block.rows] = block.in_user >= oldest[block.users]
    return Decision(keep)


def _user(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps all rows of each user with probability `rate`."""
    return Decision(np.repeat(below(user_hashes(rows.seed, rows.users), config.rate), rows.counts))


def _head(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps all rows but the surplus of the heaviest users, round(rate n) in all."""
    quota = caps(rows.counts, round(config.rate * len(rows)), user_hashes(rows.seed, rows.users))
    return Decision(smallest_of_users(rows, quota))


def caps(counts: Int64, wanted: int, hashes: UInt64) -> Int64:
    """Returns how many rows each user keeps where the heaviest are cut to one height, int64 [num_users].

    The height c is the largest for which the sum of min(n, c) is at most `wanted`; of the users with more
    than c rows so many as are still wanted, those with the smallest hashes, keep c + 1.
    """
    low, high = 0, int(counts.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= wanted else (low, middle - 1)
    kept = np.minimum(counts, low)
    heavy = np.flatnonzero(counts > low)
    more = heavy[np.argsort(hashes[heavy], kind="stable")[: wanted - int(kept.sum())]]
    kept[more] += 1
    return kept


def _per_item(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps of each item's n rows the max(1, round(rate n)) with the smallest hashes."""
    keep, largest = _nothing(rows), _smallest_of_items(rows, config.rate)
    for block in rows:
        keep[block.rows] = block.hashes <= largest[block.items]
    return Decision(keep)


def _smallest_of_items(rows: Rows, rate: float, held: int = ITEM_ROWS) -> UInt64:
    """Returns the largest hash that is kept of each item, uint64 [num_items]; some items at a time."""
    counts = rows.item_counts()
    wanted, ends = quotas(counts, rate), np.cumsum(counts)
    largest = np.zeros(len(counts), dtype=np.uint64)
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + held, side="right")))
        _fill_smallest(rows, first, last, wanted, largest)
        first = last
    return largest


def _fill_smallest(rows: Rows, first: int, last: int, wanted: Int64, largest: UInt64) -> None:
    """Sets `largest` of the items from `first` to before `last`."""
    items, hashes = [], []
    for block in rows:
        inside = (block.items >= first) & (block.items < last)
        items.append(block.items[inside])
        hashes.append(block.hashes[inside])
    item, hashed = np.concatenate(items), np.concatenate(hashes)
    order = np.lexsort((hashed, item))
    start = np.searchsorted(item[order], np.arange(first, last))
    some = np.flatnonzero(wanted[first:last])
    largest[first + some] = hashed[order][start[some] + wanted[first + some] - 1]


def _propensity(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps a row of an item with a probability that falls with the item's popularity."""
    probability = keep_probabilities(rows.item_counts(), config)
    keep = _nothing(rows)
    for block in rows:
        keep[block.rows] = below(block.hashes, probability[block.items])
    return Decision(keep, 1 / probability)


def _forgetting(rows: Rows, config: SampleConfig) -> Decision:
    """Keeps what a proxy model gets wrong most often, ties by the smallest hash."""
    from effrec_cli.data.sampling.forgetting import forgotten_most

    scores = forgotten_most(rows, config.forgetting)
    if config.forgetting.per_user:
        return Decision(smallest_of_users(rows, quotas(rows.counts, config.rate), -scores))
    hashes = np.concatenate([block.hashes for block in rows])
    keep = _nothing(rows)
    keep[np.lexsort((hashes, -scores))[: round(config.rate * len(rows))]] = True
    return Decision(keep)


def _nothing(rows: Rows) -> Bool:
    return np.zeros(len(rows), dtype=bool)


_MODES: dict[str, Callable[[Rows, SampleConfig], Decision]] = {
    "uniform": _uniform,
    "exact": _exact,
    "per_user": _per_user,
    "per_item": _per_item,
    "temporal": _temporal,
    "user": _user,
    "head": _head,
    "propensity": _propensity,
    "forgetting": _forgetting,
}
