"""Which rows stay: rating threshold, duplicates, users' last rows, and least counts of items and users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.rows import Rows, counts
from effrec_cli.errors import ConfigError
from effrec_cli.schema.dataset_base import FilterConfig

Mask = NDArray[np.bool_]


def drop_low_ratings(rows: Rows, min_rating: float | None) -> int:
    """Drops rows rated below `min_rating`, in place, and returns how many.

    Raises:
        ConfigError: a threshold is set and the data have no ratings.
    """
    if min_rating is None:
        return 0
    if rows.ratings is None:
        raise ConfigError(
            "A rating threshold is set, but these data have no ratings.",
            where=f"dataset.filter.min_rating={min_rating}",
            fix="dataset.filter.min_rating=null, or name the column by dataset.rating=COLUMN",
        )
    keep = rows.ratings >= np.float32(min_rating)
    return _keep(rows, keep)


def drop_duplicates(rows: Rows, rule: str, num_items: int) -> int:
    """Drops all but the `first` or `last` row of each (user, item), in place, and returns how many.

    The rows are in their final order, so first and last are meant in time. `keep` drops nothing.
    """
    if rule == "keep":
        return 0
    pair = rows.users.astype(np.int64) * num_items + rows.items
    order = np.argsort(pair, kind="stable")
    same = pair[order][1:] == pair[order][:-1]
    keep = np.ones(len(rows), dtype=bool)
    keep[order[1:][same] if rule == "first" else order[:-1][same]] = False
    return _keep(rows, keep)


def drop_older(rows: Rows, settings: FilterConfig, num_users: int) -> int:
    """Drops all but the last `max_user_count` rows of each user, in place, and returns how many.

    The rows are in their final order: user after user, and in time inside a user.

    Raises:
        ConfigError: users with so few rows would all be dropped.
    """
    most = settings.max_user_count
    if most is None:
        return 0
    if most < settings.min_user_count:
        raise ConfigError(
            f"Of each user at most {most} rows stay, and users with fewer than {settings.min_user_count} go: "
            "nobody is left.",
            where=f"dataset.filter.max_user_count={most}",
            fix=f"dataset.filter.min_user_count={most}, or a larger max_user_count",
        )
    end = np.cumsum(counts(rows.users, num_users))
    return _keep(rows, end[rows.users] - np.arange(len(rows)) <= most)


def drop_rare(rows: Rows, settings: FilterConfig, num_users: int, num_items: int) -> tuple[int, int]:
    """Drops rows of items, then of users, with too few rows, in place.

    `once` does each one time, as papers/cce section 3.3: afterwards an item may have fewer rows than asked.
    `iterative` repeats until nothing changes: the k-core.

    Returns:
        how many rows went with rare items, and how many with short users.
    """
    by_item = by_user = 0
    while True:
        step_item = _keep_frequent(rows, rows.items, num_items, settings.min_item_count)
        step_user = _keep_frequent(rows, rows.users, num_users, settings.min_user_count)
        by_item, by_user = by_item + step_item, by_user + step_user
        if settings.k_core == "once" or not (step_item or step_user):
            return by_item, by_user


def _keep_frequent(rows: Rows, codes: NDArray[np.int32], size: int, least: int) -> int:
    if least <= 1:
        return 0
    enough = counts(codes, size) >= least
    return _keep(rows, enough[codes])


def _keep(rows: Rows, keep: Mask) -> int:
    dropped = len(keep) - int(np.count_nonzero(keep))
    if dropped:
        rows.take(keep)
    return dropped
