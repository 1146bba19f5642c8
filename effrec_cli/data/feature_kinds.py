"""What feature columns of labelled rows may hold: numbers that may be missing, and values of a category."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.kinds import Kind, MalformedError, Mask
from effrec_cli.data.sampling.hashing import id_digests
from effrec_cli.data.shuffle import mix

_MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
"""What a missing number is written as: what arrow reads as one."""
_LARGEST = float(np.finfo(np.float32).max)
_VALUES = np.uint64(0x76616C756573)

MISSING = 0
"""The hash of a value that is missing; no other value has it."""


@dataclass(frozen=True)
class Dense(Kind):
    """A finite number, or none; NaN stands for none."""

    dtype = np.float32

    def arrow_type(self) -> Any:
        """Returns float64, which holds whole numbers that float32 does not."""
        import pyarrow as pa

        return pa.float64()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns float32 values, NaN for null, and flags what is beyond float32."""
        values = array.to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            return values.astype(np.float32), np.abs(values) > _LARGEST

    def careful(self, text: str) -> float:
        """Returns the number, NaN where none is written."""
        text = text.strip()
        if text in _MISSING:
            return math.nan
        try:
            value = float(text.replace("_", "x"))
        except ValueError:
            raise MalformedError("is not a number") from None
        if not abs(value) <= _LARGEST:
            raise MalformedError("is not a finite number")
        return value


@dataclass(frozen=True)
class Category(Kind):
    """Any text or whole number, read as a 64-bit hash of it; `MISSING` where there is none."""

    dtype = np.uint64

    def arrow_type(self) -> Any:
        """Returns string."""
        import pyarrow as pa

        return pa.string()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns uint64 hashes and flags nothing; each distinct text is hashed once."""
        encoded = array.fill_null("").dictionary_encode()
        words = encoded.dictionary.to_numpy(zero_copy_only=False)
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        hashes = value_hashes(words) if len(words) else np.zeros(0, np.uint64)
        return hashes[codes], np.zeros(len(array), dtype=bool)

    def careful(self, text: str) -> int:
        """Returns the hash."""
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise MalformedError("is not valid UTF-8")
        return int(value_hashes(np.array([text], dtype=object))[0])


def value_hashes(words: NDArray[Any]) -> NDArray[np.uint64]:
    """Returns a hash of each text, uint64 [n], whatever file or order it comes in; `MISSING` of ""."""
    hashes = mix(id_digests(words) ^ _VALUES)
    hashes[hashes == MISSING] = 1
    hashes[words == ""] = MISSING
    return hashes
