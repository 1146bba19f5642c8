"""Digests of raw files, remembered, so that a big file is hashed once and not at every start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from effrec_cli.data.atomic import read_json, write_json
from effrec_cli.data.cache import hash_file
from effrec_cli.errors import DataError, EnvironmentFault

_INDEX = "digests.json"


def digest_of(path: Path, data_root: Path) -> str:
    """Returns the sha256 of a file's content, from the index while its size and time of change are the same.

    Raises:
        DataError: the file cannot be read.
    """
    stat = path.stat()
    state = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return remembered(str(path.resolve()), state, lambda: _hash(path), data_root)


def remembered(key: str, state: Mapping[str, Any], digest: Callable[[], str], data_root: Path) -> str:
    """Returns what `digest` gives, from the index while `state` is the same.

    An index that cannot be written (a shared, read-only data root) costs hashing again, nothing else.

    Args:
        key: of the entry in the index.
        state: what changes where the content does, and is cheap to find.
        digest: hashes the content.
        data_root: where the index is.
    """
    known = (read_json(data_root / _INDEX) or {}).get(key)
    if isinstance(known, dict) and known == {**state, "sha256": known.get("sha256")}:
        return str(known["sha256"])
    found = digest()
    index = read_json(data_root / _INDEX) or {}
    index[key] = {**state, "sha256": found}
    try:
        write_json(data_root / _INDEX, index)
    except (OSError, EnvironmentFault):
        return found
    return found


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError("This file cannot be read.", where=f"{path}: {error.strerror}") from error
