"""From filtered rows to the final numbering: who and what remains, and where each user's rows lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.order import offsets_of
from effrec_cli.data.rows import Collected, Rows, compact
from effrec_cli.data.split import RawIds, Split, make_split
from effrec_cli.data.types import EvalCases, Int64
from effrec_cli.schema.dataset_base import DatasetConfig


@dataclass
class Layout:
    """Prepared data in memory.

    Attributes:
        offsets: int64 [num_users + 1].
        rows: all rows in their final order and numbering.
        user_ids: raw ids by row number.
        item_ids: raw ids by row number.
        split: ranges over the rows.
    """

    offsets: Int64
    rows: Rows
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    split: Split


def lay_out(collected: Collected, config: DatasetConfig) -> Layout:
    """Returns the final numbering and split of ordered, filtered rows; there is at least one.

    Raises:
        DataError: the split cannot be made.
    """
    rows = collected.rows
    user_ids, item_ids = _renumber(rows, collected.user_ids, collected.item_ids)
    offsets = offsets_of(rows.users, len(user_ids))
    split = make_split(offsets, rows, RawIds(user_ids, item_ids), config.split, config.name)
    if split.keep is None:
        return Layout(offsets, rows, user_ids, item_ids, split)
    return _drop(offsets, rows, user_ids, item_ids, split)


def _renumber(
    rows: Rows, user_ids: NDArray[Any], item_ids: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers only users and items that have rows, in place, and returns their raw ids."""
    users, rows.users = compact(rows.users, len(user_ids))
    items, rows.items = compact(rows.items, len(item_ids))
    return user_ids[users], item_ids[items]


def _drop(offsets: Int64, rows: Rows, user_ids: NDArray[Any], item_ids: NDArray[Any], split: Split) -> Layout:
    """Returns the layout without the rows that the split does not keep; its ranges move along."""
    assert split.keep is not None
    moved = np.concatenate([[0], np.cumsum(split.keep, dtype=np.int64)])
    has_rows = moved[offsets[1:]] > moved[offsets[:-1]]
    new_user = np.cumsum(has_rows, dtype=np.int32) - np.int32(1)
    rows.take(split.keep)
    user_ids, item_ids = _renumber(rows, user_ids, item_ids)
    split = replace(
        split,
        train_end=moved[split.train_end][has_rows],
        valid=_move(split.valid, moved, new_user),
        test=_move(split.test, moved, new_user),
        keep=None,
    )
    return Layout(offsets_of(rows.users, len(user_ids)), rows, user_ids, item_ids, split)


def _move(part: EvalCases, moved: Int64, new_user: NDArray[np.int32]) -> EvalCases:
    return EvalCases(
        new_user[part.users],
        moved[part.history_start],
        moved[part.history_end],
        moved[part.target_start],
        moved[part.target_end],
    )
