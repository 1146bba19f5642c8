"""Texts as numbers: the tokens of all of them behind each other, and where each begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Int32, Int64


@dataclass(frozen=True)
class TokenTable:
    """The tokens of V items, in CSR form.

    Attributes:
        tokens: int32 [total], item after item.
        offsets: int64 [V + 1]; item i owns tokens offsets[i] to offsets[i + 1].
        num_words: words of the vocabulary; every token is below it.
        pad: the token that fills up; among the real ones it may occur or not.
    """

    tokens: Int32
    offsets: Int64
    num_words: int
    pad: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64:
        """Tokens of each item, int64 [V]; 0 where it has none."""
        return np.diff(self.offsets)

    def of(self, item: int) -> Int32:
        """Returns the tokens of one item."""
        return self.tokens[self.offsets[item] : self.offsets[item + 1]]

    def cut(self, most: int) -> TokenTable:
        """Returns the table with the first `most` tokens of each item, itself where none has more."""
        kept = np.minimum(self.lengths, most)
        if kept.sum() == self.offsets[-1]:
            return self
        offsets = np.concatenate([[0], np.cumsum(kept)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], kept)
        return TokenTable(self.tokens[places], offsets, self.num_words, self.pad)

    def shifted(self, by: int) -> TokenTable:
        """Returns the table with every token raised by `by`: the lowest ones are free for something else."""
        return TokenTable(self.tokens + np.int32(by), self.offsets, self.num_words + by, self.pad)

    def led(self) -> TokenTable:
        """Returns the table with one more word, which leads every item: none is without a token then."""
        tokens = np.insert(self.tokens, self.offsets[:-1], np.int32(self.num_words))
        return TokenTable(tokens, self.offsets + np.arange(len(self) + 1), self.num_words + 1, self.pad)


def table_of(rows: list[NDArray[np.int32]], num_words: int, pad: int = 0) -> TokenTable:
    """Returns the table of items whose tokens are int32 [n] each, n any number."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    tokens = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    return TokenTable(tokens.astype(np.int32), offsets.astype(np.int64), num_words, pad)
