"""Labelled rows: what was shown, what is known of it, and whether it was clicked; the data of task ctr."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.attributes import Attributes, attributes_of
from effrec_cli.data.news import last_by_time, parts_by_time
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import Int64, RecData, refuse_sample
from effrec_cli.errors import DataError
from effrec_cli.schema.attributes import KINDS
from effrec_cli.schema.dataset_base import PartsConfig

PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}


@dataclass(frozen=True)
class Clicks:
    """All R labelled rows; where nothing else is said, each array has one entry a row.

    Attributes:
        name: of the dataset.
        content_hash: of the dataset.
        labels: int8 [R], 0 or 1.
        part: int8 [R]; TRAIN, VALID or TEST.
        protocol: how the parts were made, stamped on every metric.
        users: int32 [R], indices into `user_ids`; None where rows name nobody.
        items: int32 [R], indices into `item_ids`; None likewise.
        user_ids: raw ids of users.
        item_ids: raw ids of items.
        times: int64 [R] Unix seconds, or None.
        dense: float32 [R, F], NaN where a value is missing; F is 0 where there are none.
        categories: int32 [R, C], 0 where a value is missing, else one more than its place in `values`.
        values: of each of the C columns the hashes of its values, uint64, ascending.
        about: attributes of users and of items, whose rows `users` and `items` number; None without any.
        chance: float32 [R] true probabilities of label 1, where the source knows them.
    """

    name: str
    content_hash: str
    labels: NDArray[np.int8]
    part: NDArray[np.int8]
    protocol: dict[str, Any]
    users: NDArray[np.int32] | None
    items: NDArray[np.int32] | None
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    times: Int64 | None
    dense: NDArray[np.float32]
    categories: NDArray[np.int32]
    values: list[NDArray[np.uint64]] = field(default_factory=list)
    about: tuple[Attributes, Attributes] | None = None
    chance: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def of_part(self, part: str) -> Int64:
        """Returns the numbers of a part's rows, ascending; `part` is `train`, `valid` or `test`."""
        return np.flatnonzero(self.part == PARTS[part])


def clicks_of(
    data: RecData, parts: PartsConfig, kinds: Collection[str] = KINDS, text_dim: int = 32
) -> Clicks:
    """Returns a dataset's labelled rows from its side arrays.

    These are `labels` and `labelled_*` (see `LabelledRows`), or impressions of one width
    (`impressions_candidates`, the simulator's), each of whose candidates is a row. Where the source has no
    parts of its own, the last `test_share` of all rows are for the test and the `valid_share` before them
    for validation: by time, rows of one second never parted, or where there are no times by the order of the
    file.

    Args:
        data: the dataset.
        parts: what is held out.
        kinds: which attributes of users and items are read.
        text_dim: width of text vectors.

    Raises:
        DataError: the dataset has no labels, or a part has only ones or only zeros.
    """
    refuse_sample(data, "labelled rows")
    if "labels" in data.side:
        found = _labelled(data, parts)
    elif "impressions_candidates" in data.side and "impressions_offsets" not in data.side:
        found = _shown(data, parts, kinds, text_dim)
    else:
        raise DataError(
            f"Dataset '{data.name}' has no labels, which task ctr tells.",
            where=f"dataset={data.name}",
            fix="dataset=table dataset.label=COLUMN, dataset=synthetic with impressions in dataset.side, or "
            "method.task=top_n",
        )
    _require_both_labels(found)
    return found


def _labelled(data: RecData, parts: PartsConfig) -> Clicks:
    """Returns the labelled rows of a table."""
    side = data.side
    labels, times = np.asarray(side["labels"]), side.get("labelled_times")
    part, protocol = _parts(len(labels), times, side.get("labelled_part"), parts)
    sizes = side.get("labelled_value_counts", np.zeros(0, np.int64))
    values = side.get("labelled_values", np.zeros(0, np.uint64))
    nobody = np.zeros(0, np.int64)
    return Clicks(
        name=data.name,
        content_hash=data.content_hash,
        labels=labels,
        part=part,
        protocol=protocol,
        users=side.get("labelled_users"),
        items=side.get("labelled_items"),
        user_ids=side.get("labelled_user_ids", nobody),
        item_ids=side.get("labelled_item_ids", nobody),
        times=times,
        dense=side.get("labelled_dense", np.zeros((len(labels), 0), np.float32)),
        categories=side.get("labelled_categories", np.zeros((len(labels), 0), np.int32)),
        values=np.split(values, np.cumsum(sizes)[:-1]) if len(sizes) else [],
    )


def _shown(data: RecData, parts: PartsConfig, kinds: Collection[str], text_dim: int) -> Clicks:
    """Returns the candidates of impressions, each a row with what is known of its user and item."""
    side = data.side
    width = side["impressions_candidates"].shape[1]
    times = np.repeat(side["impressions_time"], width)
    part, protocol = _parts(len(times), times, None, parts)
    chance = side.get("impressions_chance")
    return Clicks(
        name=data.name,
        content_hash=data.content_hash,
        labels=side["impressions_clicks"].reshape(-1).astype(np.int8),
        part=part,
        protocol=protocol | {"rows": "candidates of slates that got a click"},
        users=np.repeat(side["impressions_user"], width),
        items=side["impressions_candidates"].reshape(-1),
        user_ids=data.users.ids,
        item_ids=data.items.ids,
        times=times,
        dense=np.zeros((len(times), 0), np.float32),
        categories=np.zeros((len(times), 0), np.int32),
        about=attributes_of(data, kinds, text_dim),
        chance=None if chance is None else _given_a_click(chance),
    )


def _given_a_click(chance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the probability of each click of slates [n, C] that got one, flat: p / (1 - prod(1 - p))."""
    any_click = -np.expm1(np.log1p(-chance.astype(np.float64)).sum(axis=1, keepdims=True))
    return (chance / any_click).astype(np.float32).reshape(-1)


def _parts(
    rows: int, times: Int64 | None, given: NDArray[np.uint8] | None, parts: PartsConfig
) -> tuple[NDArray[np.int8], dict[str, Any]]:
    """Returns the part of each row, and how it was made."""
    order, kind = (np.arange(rows), "file") if times is None else (np.asarray(times), "time")
    shares = {"test_share": parts.test_share, "valid_share": parts.valid_share}
    if given is None:
        return parts_by_time(order, parts), {"parts": {"last_of_all": shares, "by": kind}}
    part = np.array(given, dtype=np.int8)
    if (part == VALID).any():
        return part, {"parts": "ready-made"}
    train = np.flatnonzero(part == TRAIN)
    part[train[last_by_time(order[train], parts.valid_share)]] = VALID
    return part, {"parts": {"test": "ready-made", "valid_share": parts.valid_share, "by": kind}}


def _require_both_labels(clicks: Clicks) -> None:
    """Raises DataError where a part has only ones or only zeros, or nothing."""
    for name, value in PARTS.items():
        of_part = clicks.part == value
        rows, ones = int(of_part.sum()), int(clicks.labels[of_part].sum())
        if not 0 < ones < rows:
            share = "test_share" if name == "test" else "valid_share"
            raise DataError(
                f"{ones:,} of {rows:,} rows of the {name} part are labelled 1: nothing to tell apart.",
                where=f"dataset {clicks.name}, {len(clicks):,} rows",
                fix=f"another dataset.parts.{share}, or more rows",
            )
