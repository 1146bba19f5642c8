"""Items of an exact shape, drawn with numpy alone: how popular they are, and what they say.

What users do has no pattern: steps cost what they cost whether anything can be learnt or not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.text import SPECIAL, vocabulary
from effrec_cli.data.types import EvalCases, Int32, Int64

CLUSTERS = 20
"""Of the simulator whose words titles are made of."""

Arrays = dict[str, NDArray[Any]]


def popular(rng: np.random.Generator, items: int, count: int, flat: int = 0) -> Int32:
    """Returns items drawn by Zipf's law, int32 [count]; which ones are popular is drawn, too.

    Args:
        rng: draws.
        items: in the catalogue.
        count: how many are drawn.
        flat: places left out at the top: the r-th item has a share of 1 / (flat + r).
    """
    reached = np.cumsum(1 / np.arange(flat + 1, flat + items + 1))
    ranks = np.searchsorted(reached, reached[-1] * rng.random(count))
    return rng.permutation(items).astype(np.int32)[ranks]


def texts(rng: np.random.Generator, items: int, tokens: int) -> tuple[Arrays, NDArray[Any]]:
    """Returns the items' tokens, and titles for an encoder with a tokenizer of its own, a word a token.

    Args:
        rng: draws.
        items: in the catalogue.
        tokens: of an item in the mean, from half to one and a half times as many.
    """
    words = np.array(vocabulary(CLUSTERS))
    lengths = rng.integers(max(1, tokens // 2), tokens + tokens // 2 + 1, items)
    offsets: Int64 = np.concatenate([[0], np.cumsum(lengths)])
    flat = rng.integers(len(SPECIAL), len(words), offsets[-1], dtype=np.int32)
    spelt = words[flat]
    titles = [" ".join(spelt[low:high]) for low, high in pairwise(offsets)]
    said = {"item_tokens": flat, "item_token_offsets": offsets, "item_vocabulary": words}
    return said, np.array(titles)


def nobody() -> EvalCases:
    """Returns no cases."""
    none = np.zeros(0, dtype=np.int64)
    return EvalCases(none.astype(np.int32), none, none, none, none)
