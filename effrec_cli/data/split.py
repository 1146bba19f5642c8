"""What is held out: each split is a set of ranges over the ordered rows and copies nothing.

`leave_one_out` and `files` are here; `split_time.py` has `global_time`, `split_random.py` has `random` and
`files_random`, `split_strong.py` has `strong`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.rows import Rows
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import EvalCases, Int64
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import READY_MADE, SplitConfig


@dataclass(frozen=True)
class RawIds:
    """Raw ids by row number, of users and of items."""

    users: NDArray[Any]
    items: NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Who trains on what and who is ranked for what.

    Attributes:
        train_end: int64 [num_users]; where each user's training rows end.
        valid: cases for model selection.
        test: cases for the result.
        protocol: what is stamped on every metric.
        keep: bool [num_rows], the rows that stay in the data, or None for all of them.
        counts: users and cases left out, and why.
    """

    train_end: Int64
    valid: EvalCases
    test: EvalCases
    protocol: dict[str, Any]
    keep: NDArray[np.bool_] | None = None
    counts: dict[str, int] = field(default_factory=dict)


def cases(who: NDArray[np.bool_], start: Int64, end: Int64, target: Int64, target_end: Int64) -> EvalCases:
    """Returns the cases of the users in `who` from ranges given for all users, int64 [num_users] each."""
    users = np.flatnonzero(who)
    return EvalCases(users.astype(np.int32), start[users], end[users], target[users], target_end[users])


def leave_one_out(offsets: Int64) -> Split:
    """Holds out each user's last row for the test and the one before for validation.

    Users with fewer than three rows only train. A history is all that lies before its target, so the test
    history contains the validation item.
    """
    start, end = offsets[:-1], offsets[1:]
    held = end - start >= 3
    train_end = np.where(held, end - 2, end)
    return Split(
        train_end,
        valid=cases(held, start, end - 2, end - 2, end - 1),
        test=cases(held, start, end - 1, end - 1, end),
        protocol={"kind": "leave_one_out"},
        counts={"users_that_only_train": int(np.count_nonzero(~held))},
    )


def given_parts(offsets: Int64, rows: Rows, source: str) -> Split:
    """Takes ready-made parts: train, then validation, then test inside each user.

    All of a user's held-out rows are relevant to one case. Without a validation part, the last training row
    of each user with at least three is held out for it. A case needs a history, so users whose rows are all
    held out have none.

    Raises:
        ConfigError: the rows carry no parts.
        DataError: no row is in the test part.
    """
    parts = require_parts(rows, "files", source)
    given = bool((parts == VALID).any())
    split = parts_in_order(offsets, parts, last_validates=not given)
    split.protocol.update(kind="files", valid="given" if given else "last_training_row")
    return split


def require_parts(rows: Rows, kind: str, source: str) -> NDArray[np.int8]:
    """Returns the ready-made parts of rows.

    Raises:
        ConfigError: they carry none.
        DataError: no row is in the test part.
    """
    if rows.parts is None:
        raise ConfigError(
            "These data come without ready-made parts.",
            where=f"dataset.split.kind={kind} of dataset '{source}'",
            fix="dataset.split.kind=leave_one_out, or dataset=table with path, valid_path and test_path",
        )
    if not (rows.parts == TEST).any():
        raise DataError("The test part has no rows left.", where="dataset.test_path")
    return rows.parts


def parts_in_order(offsets: Int64, parts: NDArray[np.int8], *, last_validates: bool = False) -> Split:
    """Returns the split of users' rows that are ordered by part; all held-out rows of a user are one case.

    Args:
        offsets: int64 [num_users + 1].
        parts: int8 [num_rows]; TRAIN, then VALID, then TEST inside each user.
        last_validates: the last training row of each user with at least three of them is validation.
    """
    num_train, num_valid = (rows_per_user(offsets, parts == part) for part in (TRAIN, VALID))
    start, end = offsets[:-1], offsets[1:]
    valid_end = start + num_train + num_valid
    train_end = start + num_train - (num_train >= 3 if last_validates else 0)
    has_valid, has_test = train_end < valid_end, valid_end < end
    return Split(
        train_end,
        valid=cases(has_valid & (train_end > start), start, train_end, train_end, valid_end),
        test=cases(has_test & (valid_end > start), start, valid_end, valid_end, end),
        protocol={},
        counts={
            "valid_users_without_history": int(np.count_nonzero(has_valid & (train_end == start))),
            "test_users_without_history": int(np.count_nonzero(has_test & (valid_end == start))),
        },
    )


def rows_per_user(offsets: Int64, flags: NDArray[np.bool_]) -> Int64:
    """Returns how many of each user's rows are flagged; every user has at least one row."""
    return np.add.reduceat(flags, offsets[:-1], dtype=np.int64)


def make_split(offsets: Int64, rows: Rows, ids: RawIds, settings: SplitConfig, source: str) -> Split:
    """Returns the split that `settings` asks for, over rows in order; of the kinds `DRAWN`, it reorders them.

    Raises:
        ConfigError: ready-made parts are there and not asked for, or the other way round.
        DataError: the rows do not allow this split.
    """
    if settings.kind == "files":
        return given_parts(offsets, rows, source)
    if rows.parts is not None and settings.kind not in READY_MADE:
        raise ConfigError(
            "Ready-made parts are given, but the split would ignore them.",
            where=f"dataset.split.kind={settings.kind} with dataset.valid_path or dataset.test_path",
            fix="dataset.split.kind=files, or leave the two paths out",
        )
    if settings.kind == "leave_one_out":
        return leave_one_out(offsets)
    from effrec_cli.data.split_random import files_random, random_split
    from effrec_cli.data.split_strong import strong
    from effrec_cli.data.split_time import global_time

    if settings.kind == "files_random":
        return files_random(offsets, rows, ids, settings, source)
    if settings.kind == "random":
        return random_split(offsets, rows, ids, settings)
    if settings.kind == "strong":
        return strong(offsets, rows, ids, settings)
    return global_time(offsets, rows, len(ids.items), settings)
