"""Digests of what features are made of: items' contents in their order."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.digests import digest_of
from effrec_cli.data.tokens import TokenTable

_BLOCK_BYTES = 16 << 20


def texts_digest(texts: Iterable[str]) -> str:
    """Returns what tells texts in their order from all others."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = str(text).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def tokens_digest(table: TokenTable) -> str:
    """Returns what tells ready-made tokens in their order from all others."""
    parts = (array_digest(each) for each in (table.tokens, table.offsets))
    return hashlib.sha256(" ".join([*parts, str(table.num_words), str(table.pad)]).encode()).hexdigest()


def array_digest(array: NDArray[Any], data_root: Path | None = None) -> str:
    """Returns what tells an array from all others.

    Args:
        array: any.
        data_root: where digests of files are remembered; an array that is a whole .npy file, memory-mapped,
            is then hashed once and not at every start.
    """
    path = None if data_root is None else _file_of(array)
    if path is not None and data_root is not None:
        return digest_of(path, data_root)
    return _saved_digest(array)


def _saved_digest(array: NDArray[Any]) -> str:
    """Returns the sha256 that the array's .npy file has, or would have."""
    digest = hashlib.sha256(_header(array))
    step = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes)) if array.ndim else 1
    for first in range(0, len(array), step):
        digest.update(np.ascontiguousarray(array[first : first + step]).tobytes())
    return digest.hexdigest()


def _header(array: NDArray[Any]) -> bytes:
    """Returns what such an array's .npy file begins with."""
    held = io.BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(held, said)
    return held.getvalue()


def _file_of(array: NDArray[Any]) -> Path | None:
    """Returns the .npy file that an array is a memory map of, from its first value to its last."""
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    if base is None or base.filename is None:
        return None
    path = Path(base.filename)
    whole = base.shape == array.shape and base.dtype == array.dtype and path.suffix == ".npy"
    return path if whole and path.stat().st_size == base.offset + base.nbytes else None
