"""Prepared data on disk: one .npy file an array, opened memory-mapped, and a manifest that describes them.

The format: `manifest.json` names every array with its size and sha256, the raw content and the settings it
was made from, and counts. Opening checks sizes and shapes (so half a file is found at once); `verify`
hashes everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.atomic import disk_faults, read_json, write_json
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences

FORMAT = 1
"""Raised when a prepared folder of an older version can no longer be read as it is."""

MANIFEST = "manifest.json"
_CASE_FIELDS = ("users", "history_start", "history_end", "target_start", "target_end")


class BadCache(Exception):
    """A prepared folder that is missing, damaged or of another format; its message says which."""


def case_arrays(part: str, cases: EvalCases) -> dict[str, NDArray[Any]]:
    """Returns the arrays of one part's cases, under their names on disk."""
    return {f"{part}.{name}": getattr(cases, name) for name in _CASE_FIELDS}


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any] | None]) -> dict[str, dict[str, Any]]:
    """Writes each array to `<name>.npy` and returns their entries for the manifest; None is left out."""
    return {name: _write(folder, name, array) for name, array in arrays.items() if array is not None}


def _write(folder: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    if not _is_file(array, path):
        with disk_faults(path):
            np.save(path, array, allow_pickle=False)
    return entry_of(path)


def entry_of(path: Path) -> dict[str, Any]:
    """Returns what the manifest says of an array's file: its `bytes` and `sha256`."""
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _is_file(array: NDArray[Any], path: Path) -> bool:
    """Returns whether an array is what lies at `path`: a source may have written a large one there."""
    mapped = array if isinstance(array, np.memmap) else array.base
    return isinstance(mapped, np.memmap) and mapped.filename is not None and Path(mapped.filename) == path


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, which makes the folder openable."""
    write_json(folder / MANIFEST, {"format": FORMAT, **manifest})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest.

    Raises:
        BadCache: there is none, or it is of another format.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise BadCache("its manifest is missing or damaged")
    if manifest.get("format") != FORMAT:
        raise BadCache(f"its format is {manifest.get('format')}, this effrec writes {FORMAT}")
    return manifest


def open_array(folder: Path, name: str, size: int | None = None) -> NDArray[Any]:
    """Returns one array, memory-mapped and read-only.

    Args:
        folder: the prepared folder.
        name: the array's name.
        size: bytes the file must have; None does not check.

    Raises:
        BadCache: the file is missing, cut short or no array.
    """
    path = folder / f"{name}.npy"
    try:
        if size is not None and path.stat().st_size != size:
            raise BadCache(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise BadCache(f"{path.name} cannot be read ({error})") from error


def open_cache(folder: Path) -> RecData:
    """Returns the prepared data of a folder, memory-mapped.

    Raises:
        BadCache: something is missing, cut short or does not fit together.
    """
    manifest = read_manifest(folder)
    arrays = {name: open_array(folder, name, entry["bytes"]) for name, entry in manifest["arrays"].items()}
    try:
        data = assemble(manifest, arrays, folder)
    except KeyError as error:
        raise BadCache(f"array or entry {error} is missing") from error
    if not _fits_together(data):
        raise BadCache("its arrays do not fit together")
    return data


def _fits_together(data: RecData) -> bool:
    """Returns whether rows and users are as many in all arrays; kept rows stand behind the others."""
    kept = data.num_train if data.sample is not None else 0
    sequences = data.sequences
    columns = [c for c in (sequences.items, sequences.times, sequences.ratings) if c is not None]
    by_user = [data.train_start, data.train_end, data.full_train_end]
    return (
        all(len(column) == data.num_interactions + kept for column in columns)
        and all(len(ends) == data.num_users for ends in by_user if ends is not None)
        and (data.train_weights is None or len(data.train_weights) == kept)
    )


def assemble(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], folder: Path | None) -> RecData:
    """Returns the dataset that a manifest and its arrays make."""
    valid, test = (
        EvalCases(*(arrays[f"{part}.{name}"] for name in _CASE_FIELDS)) for part in ("valid", "test")
    )
    return RecData(
        name=manifest["name"],
        content_hash=manifest["content_hash"],
        sequences=Sequences(arrays["offsets"], arrays["items"], arrays.get("times"), arrays.get("ratings")),
        train_end=arrays["train_end"],
        valid=valid,
        test=test,
        users=Catalogue(arrays["user_ids"]),
        items=Catalogue(arrays["item_ids"], arrays.get("titles")),
        protocol=manifest["protocol"],
        folder=folder,
        ceiling=manifest.get("ceiling"),
        side={name.removeprefix("side."): a for name, a in arrays.items() if name.startswith("side.")},
        stats=manifest["stats"],
        train_start=cast(Any, arrays.get("train_start")),
        full_train_end=arrays.get("full_train_end"),
        train_weights=arrays.get("train_weights"),
        sample=manifest.get("sample"),
    )


def verify(folder: Path) -> list[str]:
    """Returns what is wrong with a prepared folder, hashing every array; empty when all is well."""
    try:
        open_cache(folder)
    except BadCache as error:
        return [str(error)]
    entries = read_manifest(folder)["arrays"]
    return [
        f"{name}.npy differs from its sha256"
        for name, entry in entries.items()
        if hash_file(folder / f"{name}.npy") != entry["sha256"]
    ]


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Returns the hex digest of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
