"""The built-in tokenizer: words of any script by their hash, without a vocabulary to learn or to keep."""

from __future__ import annotations

import re
import unicodedata
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.tokens import TokenTable, table_of

NUM_WORDS = 1 << 15
"""Buckets; of 10,000 different words one in four shares its bucket with another."""

# Scripts written without blanks between words are read letter by letter.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Marks that belong to the letter before them, and scripts whose words are full of them.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0d7f"
_RARE = "\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}{_RARE}]|(?:[^\W{_UNSPACED}{_RARE}]|[{_MARKS}])+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Returns a text's words and signs, in lower case and one way of writing each."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def hashed(texts: NDArray[Any], most: int) -> TokenTable:
    """Returns the first `most` words of each text by their buckets; the same ones on every machine."""
    buckets: dict[str, int] = {}
    rows = [
        np.array([_bucket(word, buckets) for word in words_of(str(text))[:most]], np.int32) for text in texts
    ]
    return table_of(rows, NUM_WORDS)


def _bucket(word: str, known: dict[str, int]) -> int:
    found = known.get(word)
    if found is None:
        found = known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % NUM_WORDS
    return found
