"""Splits of each user's rows by a hash: at random, whatever order the rows came in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.order import sort_rows
from effrec_cli.data.rows import Rows
from effrec_cli.data.sampling.hashing import UInt64, id_digests, key_of, row_hashes, user_hashes
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.split import RawIds, Split, parts_in_order, require_parts
from effrec_cli.data.types import Int32, Int64
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import SplitConfig

_SPLIT = 0x73706C6974
"""Keeps the draw of a split apart from that of a sample: one seed would part and keep rows by one hash."""


def seed_of(settings: SplitConfig, *purpose: int) -> int:
    """Returns the seed of a split's draw for one purpose."""
    return int(key_of(settings.seed, _SPLIT, *purpose))


def random_split(offsets: Int64, rows: Rows, ids: RawIds, settings: SplitConfig) -> Split:
    """Holds out `test_share` and `valid_share` of each user's items at random; reorders the rows in place.

    All rows of a user and an item are in one part, so that no target is trained on. A share that is no whole
    number of items is rounded up or down by the user's hash, so that the shares are met over all users, and
    at least one item of each stays for training.

    Raises:
        DataError: nobody validates, or nobody tests.
    """
    hashes = pair_hashes(rows.users, rows.items, ids, settings)
    place, sizes = item_places(rows.users, hashes, offsets)
    num_test = np.minimum(_share_of(sizes, settings.test_share, ids, settings, TEST), sizes - 1)
    num_valid = _share_of(sizes, settings.valid_share, ids, settings, VALID)
    ends = num_test, num_test + np.minimum(num_valid, sizes - 1 - num_test)
    tested, held = (place < end[rows.users] for end in ends)
    rows.parts = np.where(tested, TEST, np.where(held, VALID, TRAIN)).astype(np.int8)
    sort_rows(rows)
    split = parts_in_order(offsets, rows.parts)
    split.protocol.update(
        kind="random",
        valid_share=settings.valid_share,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    require_cases(split, settings)
    return split


def files_random(offsets: Int64, rows: Rows, ids: RawIds, settings: SplitConfig, source: str) -> Split:
    """Takes the ready-made test part, and draws validation from training rows as `random_split` does.

    Raises:
        ConfigError: there are no ready-made parts, or a validation part among them.
        DataError: nobody validates, or nobody tests.
    """
    parts = require_parts(rows, "files_random", source)
    if (parts == VALID).any():
        raise ConfigError(
            "A validation part is given, and the split would draw another.",
            where=f"dataset.split.kind=files_random of dataset '{source}'",
            fix="dataset.split.kind=files, or leave dataset.valid_path out",
        )
    among = np.flatnonzero(parts == TRAIN)
    users = rows.users[among]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(offsets) - 1))])
    place, sizes = item_places(users, pair_hashes(users, rows.items[among], ids, settings), bounds)
    share = _share_of(sizes, settings.valid_share, ids, settings, VALID)
    parts[among[place < np.minimum(share, sizes - 1)[users]]] = VALID
    sort_rows(rows)
    assert rows.parts is not None  # the ones above, in their new order
    split = parts_in_order(offsets, rows.parts)
    split.protocol.update(kind="files_random", valid_share=settings.valid_share, seed=settings.seed)
    require_cases(split, settings)
    return split


def pair_hashes(users: Int32, items: Int32, ids: RawIds, settings: SplitConfig) -> UInt64:
    """Returns a hash of each row's raw user and item id, uint64 [n]; no other row or id changes it."""
    return row_hashes(seed_of(settings), id_digests(ids.users)[users], id_digests(ids.items)[items], None)


def item_places(users: Int32, hashes: UInt64, offsets: Int64) -> tuple[Int64, Int64]:
    """Returns each row's place among its user's distinct hashes, and how many of these a user has.

    Args:
        users: int32 [n], ascending.
        hashes: uint64 [n], one for all rows of a user and an item.
        offsets: int64 [num_users + 1]; where each user's rows begin.

    Returns:
        int64 [n], 0 for the lowest hash; and int64 [num_users].
    """
    order = np.lexsort((hashes, users))
    first = np.ones(len(users), dtype=bool)
    first[1:] = (hashes[order][1:] != hashes[order][:-1]) | (users[1:] != users[:-1])
    before = np.concatenate([[0], np.cumsum(first)])
    place = np.empty(len(users), np.int64)
    place[order] = before[1:] - 1 - before[offsets[:-1]][users]
    return place, np.diff(before[offsets])


def _share_of(sizes: Int64, share: float, ids: RawIds, settings: SplitConfig, part: int) -> Int64:
    """Returns a share of each user's `sizes` in whole items, rounded up or down by a hash of the user."""
    return np.floor(sizes * share + uniform(ids.users, seed_of(settings, part))).astype(np.int64)


def uniform(user_ids: NDArray[np.generic], seed: int) -> NDArray[np.float64]:
    """Returns a number of each user in 0..1, 1 excluded, by a hash of the raw id."""
    return (user_hashes(seed, id_digests(user_ids)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def require_cases(split: Split, settings: SplitConfig) -> None:
    """Raises DataError where nobody is left to validate or to test on."""
    empty = [name for name, part in (("validation", split.valid), ("test", split.test)) if not len(part)]
    if empty:
        raise DataError(
            f"The split leaves no {' and no '.join(empty)} cases.",
            where=f"dataset.split.kind={settings.kind}",
            fix="larger shares in dataset.split, or more rows",
        )
