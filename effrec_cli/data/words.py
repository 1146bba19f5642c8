"""The built-in tokenizer: words of any script by their hash, without a vocabulary to learn or to keep."""

from __future__ import annotations

import re
import unicodedata
import zlib

from effrec_cli.data.tokenise import Split

VERSION = 1
"""Changes whenever a text is split otherwise."""
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


def splitter(most: int) -> Split:
    """Returns what splits texts into the buckets of their first `most` words, the same on every machine."""
    buckets: dict[str, int] = {}

    def bucket(word: str) -> int:
        found = buckets.get(word)
        if found is None:
            found = buckets[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % NUM_WORDS
        return found

    return lambda texts: [[bucket(word) for word in words_of(text)[:most]] for text in texts]
