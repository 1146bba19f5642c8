"""One preparation for every source: read, order, filter, number, split, write."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effrec_cli.data import cache
from effrec_cli.data.filters import drop_duplicates, drop_low_ratings, drop_rare
from effrec_cli.data.layout import Layout, lay_out
from effrec_cli.data.order import sort_rows
from effrec_cli.data.rows import Collected, collect
from effrec_cli.data.source import Say, Source
from effrec_cli.data.types import RecData
from effrec_cli.schema.dataset_base import DatasetConfig

TICKS_PER_SECOND = "ticks_per_second"
"""A source may carry this attribute when its times are finer than seconds: rows are ordered by ticks, and
stored in whole seconds."""


def recipe(config: DatasetConfig, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Returns all that decides what the prepared arrays hold; the name of the dataset does not."""
    return {
        "format": cache.FORMAT,
        "family": config.family,
        "raw": fingerprint,
        "filter": asdict(config.filter),
        "split": _split_settings(config),
    }


def _split_settings(config: DatasetConfig) -> dict[str, Any]:
    """Returns the split's settings that have an effect, so that others do not change the content hash."""
    every = asdict(config.split)
    return every if config.split.kind == "global_time" else {"kind": config.split.kind}


def content_hash(ingredients: dict[str, Any]) -> str:
    """Returns the hex digest of a `recipe`."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def prepare(source: Source, config: DatasetConfig, folder: Path, say: Say) -> None:
    """Reads a source and writes its prepared data into `folder`, manifest last.

    Raises:
        DataError: a malformed row, or no data left for the split.
    """
    ingredients = recipe(config, source.fingerprint())
    collected = collect(source, say)
    read = len(collected.rows)
    say(f"  {read:,} rows read; ordering and filtering")
    dropped = _filter(collected, config)
    ticks = getattr(source, TICKS_PER_SECOND, 1)
    if collected.rows.times is not None and ticks != 1:
        collected.rows.times //= ticks
    layout = lay_out(collected, config)
    stats = _stats(source, layout, read, dropped)
    _say_dropped(stats, say)
    manifest = {
        "name": config.name,
        "content_hash": content_hash(ingredients),
        "recipe": ingredients,
        "protocol": layout.split.protocol,
        "stats": stats,
    }
    entries = _write_core(folder, layout)
    del layout, collected
    _write_extras(source, folder, manifest, entries)
    cache.write_manifest(folder, {**manifest, "arrays": entries})


def _filter(collected: Collected, config: DatasetConfig) -> dict[str, int]:
    """Orders and filters the rows in place, and returns how many went for which reason."""
    rows, settings = collected.rows, config.filter
    low = drop_low_ratings(rows, settings.min_rating)
    sort_rows(rows)
    twice = drop_duplicates(rows, settings.duplicates, len(collected.item_ids))
    rare, short = drop_rare(rows, settings, len(collected.user_ids), len(collected.item_ids))
    return {
        "rated_below_min_rating": low,
        "duplicates": twice,
        "items_below_min_item_count": rare,
        "users_below_min_user_count": short,
    }


def _stats(source: Source, layout: Layout, read: int, dropped: dict[str, int]) -> dict[str, Any]:
    """Returns the counts kept in the manifest; the reader's keys `dropped_*` join the dropped rows."""
    reader = dict(source.stats())
    mine = {
        key.removeprefix("dropped_"): reader.pop(key) for key in list(reader) if key.startswith("dropped_")
    }
    return {
        "rows_read": reader.pop("rows_read", read + sum(mine.values())),
        "rows_kept": len(layout.rows),
        "dropped": {**mine, **dropped},
        "split": dict(layout.split.counts),
        "reader": reader,
    }


def _say_dropped(stats: dict[str, Any], say: Say) -> None:
    lost = [f"{count:,} {reason}" for reason, count in stats["dropped"].items() if count]
    say(
        f"  {stats['rows_kept']:,} rows stay"
        + (f"; dropped: {', '.join(lost)}" if lost else "")
        + "; writing"
    )


def _write_core(folder: Path, layout: Layout) -> dict[str, Any]:
    rows, split = layout.rows, layout.split
    arrays = {
        "offsets": layout.offsets,
        "items": rows.items,
        "times": rows.times,
        "ratings": rows.ratings,
        "train_end": split.train_end,
        "user_ids": layout.user_ids,
        "item_ids": layout.item_ids,
        **cache.case_arrays("valid", split.valid),
        **cache.case_arrays("test", split.test),
    }
    return cache.write_arrays(folder, arrays)


def _write_extras(source: Source, folder: Path, manifest: dict[str, Any], entries: dict[str, Any]) -> None:
    """Adds titles, side arrays and the ceiling, which the source makes from the prepared rows."""
    arrays = {name: cache.open_array(folder, name) for name in entries}
    data: RecData = cache.assemble(manifest, arrays, folder)
    entries.update(cache.write_arrays(folder, {"titles": source.titles(data.items.ids)}))
    side = {f"side.{name}": array for name, array in source.side(data).items()}
    entries.update(cache.write_arrays(folder, side))
    manifest["ceiling"] = source.ceiling(data)
