"""The global time split of papers/cce section 3.3: what comes after a moment is held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.rows import Rows
from effrec_cli.data.split import Split, cases, rows_per_user
from effrec_cli.data.types import Int64
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import SplitConfig

Mask = NDArray[np.bool_]


def moment_of(times: Int64, test_share: float) -> int:
    """Returns the last second of training: at most `test_share` of the rows lie after it.

    Rows of that very second all belong to training, so a second is never cut in two.
    """
    last = max(int(np.ceil(len(times) * (1 - test_share))) - 1, 0)
    return int(np.partition(times, last)[last])


def draw_users(candidates: Int64, share: float, seed: int) -> Int64:
    """Returns a random `share` of the candidate user rows (at least one), ascending.

    The draw sorts a mix of (seed, row number) by splitmix64 (Steele, Lea and Flood 2014), so it is the same
    on every machine and with every numpy.
    """
    count = max(1, round(share * len(candidates)))
    mixed = _splitmix64(candidates.astype(np.uint64), seed)
    return np.sort(candidates[np.argsort(mixed, kind="stable")[:count]])


def _splitmix64(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Returns the finaliser of splitmix64 at positions `numbers` of the stream of `seed`."""
    golden = 0x9E3779B97F4A7C15
    start = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    x = start + (numbers + np.uint64(1)) * np.uint64(golden)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def global_time(offsets: Int64, rows: Rows, num_items: int, settings: SplitConfig) -> Split:
    """Holds out what comes after a moment (papers/cce section 3.3).

    * The moment leaves at most `test_share` of all rows after it.
    * `valid_user_share` of the users active until then become validation users: they do not train; the
      target is their last row until the moment, the history what lies before it.
    * Everyone else who is active on both sides of the moment is a test user: the target is the last row of
      all, the history everything before it, rows after the moment included.
    * Only items that somebody trains on exist. A case whose target is another item is left out; rows of
      other items leave the data, so a history is still one range. So do users who neither train nor
      validate.

    Raises:
        DataError: the rows have no times, or the split leaves no training, validation or test.
    """
    if rows.times is None:
        raise DataError(
            "The global time split needs times, and these data have none.",
            where="dataset.split.kind=global_time",
            fix="name the column by dataset.time=COLUMN, or use dataset.split.kind=leave_one_out",
        )
    moment = moment_of(rows.times, settings.test_share)
    before = rows.times <= moment
    num_before = rows_per_user(offsets, before)
    validates = np.zeros(len(num_before), dtype=bool)
    validates[draw_users(np.flatnonzero(num_before), settings.valid_user_share, settings.seed)] = True
    trains = (num_before > 0) & ~validates
    warm = np.zeros(num_items, dtype=bool)
    warm[rows.items[before & trains[rows.users]]] = True
    split = _ranges(offsets, rows, num_before, validates, trains, warm)
    split.protocol.update(
        test_share=settings.test_share,
        valid_user_share=settings.valid_user_share,
        seed=settings.seed,
        moment=moment,
    )
    _check(split, moment)
    return split


def _ranges(
    offsets: Int64, rows: Rows, num_before: Int64, validates: Mask, trains: Mask, warm: Mask
) -> Split:
    """Returns the split as ranges over all rows; `Split.keep` names the rows that stay."""
    start, end = offsets[:-1], offsets[1:]
    middle = start + num_before
    keep = warm[rows.items] & (trains | validates)[rows.users]
    warm_before = np.concatenate([[0], np.cumsum(keep)])
    returns = trains & (middle < end)
    test = returns & warm[rows.items[end - 1]]
    leaves_out = validates & warm[rows.items[np.maximum(middle - 1, 0)]]
    valid = leaves_out & (warm_before[np.maximum(middle - 1, start)] > warm_before[start])
    return Split(
        train_end=np.where(trains, middle, start),
        valid=cases(valid, start, middle - 1, middle - 1, middle),
        test=cases(test, start, end - 1, end - 1, end),
        protocol={"kind": "global_time"},
        keep=keep,
        counts={
            "valid_users_left_out": int(np.count_nonzero(validates & ~valid)),
            "test_users_left_out": int(np.count_nonzero(returns & ~test)),
            "users_only_after_the_moment": int(np.count_nonzero(num_before == 0)),
            "rows_of_unseen_items_or_users": int(len(keep) - np.count_nonzero(keep)),
        },
    )


def _check(split: Split, moment: int) -> None:
    """Raises DataError where a part of the split is empty."""
    empty = [name for name, part in (("validation", split.valid), ("test", split.test)) if not len(part)]
    if empty:
        raise DataError(
            f"The global time split leaves no {' and no '.join(empty)} cases.",
            where=f"moment {moment} (Unix seconds)",
            fix="raise dataset.split.test_share or valid_user_share, or use dataset.split.kind=leave_one_out",
        )
