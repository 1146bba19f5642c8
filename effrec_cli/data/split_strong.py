"""Strong generalisation: some users are never trained on, and ranked for from some of their rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.order import sort_rows
from effrec_cli.data.rows import Rows
from effrec_cli.data.sampling.hashing import id_digests, user_hashes
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.split import RawIds, Split, cases, rows_per_user
from effrec_cli.data.split_random import item_places, pair_hashes, require_cases, seed_of
from effrec_cli.data.types import Int64
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import SplitConfig

Mask = NDArray[np.bool_]
_FEWEST = 2
"""Items of a user who is held out: one for the history, one to be told."""


def strong(offsets: Int64, rows: Rows, ids: RawIds, settings: SplitConfig) -> Split:
    """Holds out users; reorders the rows of these in place (papers/dsl section 2.2, its MultVAE data).

    * Of the users with at least two items, `test_user_share` are test and `valid_user_share` validation
      users, drawn by a hash. They have no training rows.
    * Only items that somebody trains on exist: other rows leave the data, and so do held-out users who then
      have fewer than two items.
    * Of each held-out user's items, `fold_in` of them (rounded, at least one, never all) are the history,
      the others are relevant to one case, drawn by a hash; all rows of an item are on one side.

    Raises:
        DataError: nobody is left to train, validate or test on.
    """
    hashes = pair_hashes(rows.users, rows.items, ids, settings)
    role = _roles(item_places(rows.users, hashes, offsets)[1], ids, settings)
    warm = _warm_items(rows, role, len(ids.items))
    known = np.flatnonzero(warm[rows.items] & (role != TRAIN)[rows.users])
    users = rows.users[known]
    bounds = np.searchsorted(users, np.arange(len(role) + 1, dtype=users.dtype))
    place, sizes = item_places(users, hashes[known], bounds)
    told = np.clip(np.floor((1 - settings.fold_in) * sizes + 0.5), 1, np.maximum(sizes - 1, 1))
    rows.parts = np.full(len(rows), TRAIN, np.int8)
    rows.parts[known[place < told[users]]] = TEST
    sort_rows(rows)
    split = _ranges(offsets, rows, role, (sizes < _FEWEST) & (role != TRAIN), warm)
    split.protocol.update(
        valid_user_share=settings.valid_user_share,
        test_user_share=settings.test_user_share,
        fold_in=settings.fold_in,
        seed=settings.seed,
    )
    require_cases(split, settings)
    return split


def _roles(sizes: Int64, ids: RawIds, settings: SplitConfig) -> NDArray[np.int8]:
    """Returns the part of each user, int8 [num_users], by how many items each has."""
    hashes = user_hashes(seed_of(settings), id_digests(ids.users))
    able = np.flatnonzero(sizes >= _FEWEST)
    drawn = able[np.argsort(hashes[able], kind="stable")]
    num_test, num_valid = (
        max(1, round(share * len(able))) for share in (settings.test_user_share, settings.valid_user_share)
    )
    if len(sizes) <= num_test + num_valid:
        raise DataError(
            f"Holding out {num_test + num_valid:,} users leaves none of {len(sizes):,} to train on.",
            where=f"dataset.split.kind={settings.kind}",
            fix="smaller shares in dataset.split, or more users",
        )
    role = np.full(len(sizes), TRAIN, np.int8)
    role[drawn[:num_test]] = TEST
    role[drawn[num_test : num_test + num_valid]] = VALID
    return role


def _warm_items(rows: Rows, role: NDArray[np.int8], num_items: int) -> Mask:
    """Returns which items somebody trains on, bool [num_items]."""
    warm = np.zeros(num_items, dtype=bool)
    warm[rows.items[(role == TRAIN)[rows.users]]] = True
    return warm


def _ranges(offsets: Int64, rows: Rows, role: NDArray[np.int8], left_out: Mask, warm: Mask) -> Split:
    """Returns the split as ranges over all rows, which are in order; `Split.keep` names those that stay."""
    assert rows.parts is not None
    start, end = offsets[:-1], offsets[1:]
    middle = end - rows_per_user(offsets, rows.parts == TEST)
    keep = warm[rows.items] & ~left_out[rows.users]
    valid, test = ((role == part) & ~left_out for part in (VALID, TEST))
    return Split(
        train_end=np.where(role == TRAIN, end, start),
        valid=cases(valid, start, middle, middle, end),
        test=cases(test, start, middle, middle, end),
        protocol={"kind": "strong"},
        keep=keep,
        counts={
            "valid_users_left_out": int(np.count_nonzero((role == VALID) & left_out)),
            "test_users_left_out": int(np.count_nonzero((role == TEST) & left_out)),
            "rows_of_unseen_items_or_users": int(len(keep) - np.count_nonzero(keep)),
        },
    )
