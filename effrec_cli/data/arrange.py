"""From a source's raw rows to the final arrays, in memory: read, order, filter, number, split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.cache import case_arrays
from effrec_cli.data.filters import drop_duplicates, drop_low_ratings, drop_older, drop_rare
from effrec_cli.data.layout import Layout, lay_out
from effrec_cli.data.order import sort_rows
from effrec_cli.data.rows import Collected, collect
from effrec_cli.data.source import Say, Source
from effrec_cli.data.types import EvalCases
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import DatasetConfig

TICKS_PER_SECOND = "ticks_per_second"
"""A source may carry this attribute when its times are finer than seconds: rows are ordered by ticks, and
stored in whole seconds."""

USABLE_ITEMS = "usable_items"
"""A source may carry this method where some items are to be dropped whatever their rows are: of the raw item
ids, ascending, it returns which stay, or None for all."""

LABELLED_ALONE = "labelled_alone"
"""A source may carry this attribute, true where its rows name no users and items: nothing is an interaction
then, and all that there is lies beside them (see `LabelledRows`)."""


@dataclass(frozen=True)
class Arranged:
    """A dataset in memory, but for what lies beside the interactions.

    Attributes:
        arrays: the arrays of a prepared folder, by name; None where the source has no such column.
        protocol: how the split was made.
        stats: rows read, kept, and dropped by reason.
    """

    arrays: dict[str, NDArray[Any] | None]
    protocol: dict[str, Any]
    stats: dict[str, Any]


def arrange(source: Source, config: DatasetConfig, say: Say) -> Arranged:
    """Reads a source and returns its rows filtered, ordered, numbered and split.

    Raises:
        ConfigError: a setting asks for what the data have not.
        DataError: a malformed row, or no data left for the split.
    """
    collected = collect(source, say)
    if getattr(source, LABELLED_ALONE, False):
        return _without_interactions(source, say)
    read = len(collected.rows)
    say("  all rows read; ordering and filtering")
    unusable = _drop_unusable(collected, source)
    dropped = unusable | _filter(collected, config)
    if not len(collected.rows):
        raise _nothing_left(source, config, read, dropped)
    _to_seconds(collected, source)
    layout = lay_out(collected, config)
    stats = _stats(source, layout, read, dropped)
    say(f"  {_summary(stats)}")
    return Arranged(_arrays(layout), layout.split.protocol, stats)


def _without_interactions(source: Source, say: Say) -> Arranged:
    """Returns a dataset without users, items and interactions, of which all is beside them."""
    found = source.stats()
    dropped = {key.removeprefix("dropped_"): n for key, n in found.items() if key.startswith("dropped_")}
    stats = {
        "rows_read": found["rows_read"],
        "dropped": dropped,
        "reader": reader_counts(source),
        "rows_kept": found["rows_read"] - sum(dropped.values()),
        "split": {},
    }
    say(f"  {_summary(stats)}")
    none, nobody = np.empty(0, np.int64), np.empty(0, np.int32)
    cases = EvalCases(nobody, none, none, none, none)
    arrays: dict[str, NDArray[Any] | None] = {
        "offsets": np.zeros(1, np.int64),
        "items": nobody,
        "train_end": none,
        "user_ids": none,
        "item_ids": none,
        **case_arrays("valid", cases),
        **case_arrays("test", cases),
    }
    return Arranged(arrays, {"kind": "none"}, stats)


def _drop_unusable(collected: Collected, source: Source) -> dict[str, int]:
    """Drops the rows of items that the source cannot use, in place; returns how many, where it can tell."""
    usable = getattr(source, USABLE_ITEMS, None)
    stays = usable(collected.item_ids) if usable is not None else None
    if stays is None:
        return {}
    before, keep = len(collected.rows), stays[collected.rows.items]
    collected.rows.take(keep)
    return {"bad_images": before - len(collected.rows)}


def _filter(collected: Collected, config: DatasetConfig) -> dict[str, int]:
    """Orders and filters the rows in place, and returns how many went for which reason."""
    rows, settings = collected.rows, config.filter
    low = drop_low_ratings(rows, settings.min_rating)
    sort_rows(rows)
    twice = drop_duplicates(rows, settings.duplicates, len(collected.item_ids))
    older = drop_older(rows, settings, len(collected.user_ids))
    rare, short = drop_rare(rows, settings, len(collected.user_ids), len(collected.item_ids))
    return {
        "rated_below_min_rating": low,
        "duplicates": twice,
        "older_than_max_user_count": older,
        "items_below_min_item_count": rare,
        "users_below_min_user_count": short,
    }


def _to_seconds(collected: Collected, source: Source) -> None:
    ticks = getattr(source, TICKS_PER_SECOND, 1)
    if collected.rows.times is not None and ticks != 1:
        collected.rows.times //= ticks


def _stats(source: Source, layout: Layout, read: int, dropped: dict[str, int]) -> dict[str, Any]:
    """Returns the counts of a dataset."""
    return {
        **_counts(source, read, dropped),
        "rows_kept": len(layout.rows),
        "split": dict(layout.split.counts),
    }


def _counts(source: Source, read: int, dropped: dict[str, int]) -> dict[str, Any]:
    """Returns what was read and dropped; the reader's keys `dropped_*` join the dropped rows."""
    found = source.stats()
    drops = {key.removeprefix("dropped_"): n for key, n in found.items() if key.startswith("dropped_")}
    return {
        "rows_read": found.get("rows_read", read + sum(drops.values())),
        "dropped": {**drops, **dropped},
        "reader": reader_counts(source),
    }


def reader_counts(source: Source) -> dict[str, int]:
    """Returns what a source counts beside rows that it read and dropped."""
    return {
        key: count
        for key, count in source.stats().items()
        if key != "rows_read" and not key.startswith("dropped_")
    }


_REMEDIES = {
    "bad_rows": "dataset.bad_rows=error shows the first malformed row",
    "labelled_0": "rows labelled 0 are no interactions: see dataset.label",
    "bad_images": "dataset.bad_images=zero keeps items without a usable image, as black",
    "rated_below_min_rating": "a lower dataset.filter.min_rating, or null for none",
    "older_than_max_user_count": "a larger dataset.filter.max_user_count, or null for all",
    "items_below_min_item_count": "a lower dataset.filter.min_item_count",
    "users_below_min_user_count": "a lower dataset.filter.min_user_count",
}
"""What brings rows back, by the reason's key."""


def _nothing_left(source: Source, config: DatasetConfig, read: int, dropped: dict[str, int]) -> DataError:
    """Returns the error for data of which every row was dropped: why, and what the most rows went for."""
    found = _counts(source, read, dropped)
    most = max(found["dropped"], key=lambda reason: int(found["dropped"][reason]))
    return DataError(
        f"No interaction is left: {_summary({**found, 'rows_kept': 0})}.",
        where=f"dataset '{config.name}'",
        fix=_REMEDIES.get(most),
    )


_WHY = {
    "bad_rows": "malformed",
    "labelled_0": "labelled 0",
    "without_prompt": "without a prompt",
    "bad_images": "of items without a usable image",
    "rated_below_min_rating": "rated below min_rating",
    "older_than_max_user_count": "before the last max_user_count of a user",
    "items_below_min_item_count": "of items below min_item_count",
    "users_below_min_user_count": "of users below min_user_count",
}
"""What is said of dropped rows, by the reason's key."""


def _summary(stats: dict[str, Any]) -> str:
    """Returns one line that adds up: rows read, dropped by reason, and kept."""
    read, kept = stats["rows_read"], stats["rows_kept"]
    reasons = {_WHY.get(reason, reason): count for reason, count in stats["dropped"].items()}
    reasons["by the split"] = read - kept - sum(reasons.values())
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    dropped = f"{read - kept:,} dropped ({why})" if why else "none dropped"
    return f"{read:,} rows read, {dropped}, {kept:,} kept"


def _arrays(layout: Layout) -> dict[str, NDArray[Any] | None]:
    rows, split = layout.rows, layout.split
    return {
        "offsets": layout.offsets,
        "items": rows.items,
        "times": rows.times,
        "ratings": rows.ratings,
        "train_end": split.train_end,
        "user_ids": layout.user_ids,
        "item_ids": layout.item_ids,
        **case_arrays("valid", split.valid),
        **case_arrays("test", split.test),
    }
