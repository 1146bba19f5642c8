"""Digests of raw files, remembered, so that a big file is hashed once and not at every start."""

from __future__ import annotations

from pathlib import Path

from effrec_cli.data.atomic import read_json, write_json
from effrec_cli.data.cache import hash_file
from effrec_cli.errors import DataError, EnvironmentFault

_INDEX = "digests.json"


def digest_of(path: Path, data_root: Path) -> str:
    """Returns the sha256 of a file's content, from the index while its size and time of change are the same.

    An index that cannot be written (a shared, read-only data root) costs hashing again, nothing else.

    Raises:
        DataError: the file cannot be read.
    """
    index = read_json(data_root / _INDEX) or {}
    key, stat = str(path.resolve()), path.stat()
    now = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    known = index.get(key)
    if isinstance(known, dict) and known == {**now, "sha256": known.get("sha256")}:
        return str(known["sha256"])
    try:
        digest = hash_file(path)
    except OSError as error:
        raise DataError("This file cannot be read.", where=f"{path}: {error.strerror}") from error
    index = read_json(data_root / _INDEX) or {}
    index[key] = {**now, "sha256": digest}
    try:
        write_json(data_root / _INDEX, index)
    except (OSError, EnvironmentFault):
        return digest
    return digest
