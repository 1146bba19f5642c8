"""Writes prepared data: what decides them, the arrays, and what the source adds to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effrec_cli.data import cache
from effrec_cli.data.arrange import arrange, reader_counts
from effrec_cli.data.source import Say, Source
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import DRAWN, READ_BY, DatasetConfig


def recipe(config: DatasetConfig, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Returns all that decides what the prepared arrays hold; the name of the dataset does not."""
    return {
        "format": cache.FORMAT,
        "family": config.family,
        "raw": fingerprint,
        "filter": _filter_settings(config),
        "split": _split_settings(config),
    }


_SINCE = ("max_user_count",)
"""Filters that came later: named where they are used, so that what was prepared before them stays known."""


def _filter_settings(config: DatasetConfig) -> dict[str, Any]:
    """Returns the filters' settings, those that came later only where they are used."""
    every, usual = asdict(config.filter), asdict(type(config.filter)())
    return {name: value for name, value in every.items() if name not in _SINCE or value != usual[name]}


def _split_settings(config: DatasetConfig) -> dict[str, Any]:
    """Returns the split's settings that have an effect, so that others do not change the content hash."""
    split = config.split
    return {"kind": split.kind, **{name: getattr(split, name) for name in READ_BY[split.kind]}}


def content_hash(ingredients: dict[str, Any]) -> str:
    """Returns the hex digest of a `recipe`."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def prepare(source: Source, config: DatasetConfig, folder: Path, say: Say) -> None:
    """Reads a source and writes its prepared data into `folder`, manifest last.

    Raises:
        ConfigError: a setting asks for what the data have not.
        DataError: a malformed row, no data left for the split, or raw files that change while being read.
    """
    ingredients = recipe(config, source.fingerprint())
    arranged = arrange(source, config, say)
    if source.fingerprint() != ingredients["raw"]:
        raise DataError("The raw data changed while they were read.", fix="start again when they are whole")
    manifest = {
        "name": config.name,
        "content_hash": content_hash(ingredients),
        "recipe": ingredients,
        "protocol": arranged.protocol,
        "stats": arranged.stats,
    }
    entries = cache.write_arrays(folder, arranged.arrays)
    del arranged
    _add_extras(source, folder, manifest, entries)
    cache.write_manifest(folder, {**manifest, "arrays": entries})


def _add_extras(source: Source, folder: Path, manifest: dict[str, Any], entries: dict[str, Any]) -> None:
    """Adds titles, side arrays and the ceiling, which the source makes from the prepared rows."""
    arrays = {name: cache.open_array(folder, name) for name in entries}
    data = cache.assemble(manifest, arrays, folder)
    entries.update(cache.write_arrays(folder, {"titles": source.titles(data.items.ids)}))
    side = {f"side.{name}": array for name, array in source.side(data).items()}
    entries.update(cache.write_arrays(folder, side))
    manifest["stats"] = {**manifest["stats"], "reader": reader_counts(source)}
    # No ceiling expects that rows which come later are trained on.
    manifest["ceiling"] = None if data.protocol["kind"] in DRAWN else source.ceiling(data)
