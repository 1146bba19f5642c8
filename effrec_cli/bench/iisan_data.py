"""Users and items of the shape of the paper's Amazon data, drawn with numpy alone; for the suite `iisan`.

Of each user the last 5 to 13 items are there, 6.8 in the mean, of which the last two are held out
(papers/iisan section 5.2). Every item is met at least once where there are places enough; the others are
drawn by Zipf's law, flatter at its top, so that a step of 64 windows has about as many different items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.bench.drawn import nobody, popular, texts
from effrec_cli.data.types import Catalogue, Int32, Int64, RecData, Sequences

FEWEST, MOST, HELD_OUT = 5, 13, 2
"""Items of a user, and how many of them training does not see."""
STOPS = 0.35
"""Probability that a user's items end, after each from the fifth on."""
FLAT = 10
"""Makes 276 different items of a step of 64 windows, as the published data have (section 2)."""
DIFFERENT = 256
"""Images that differ; the others are black, and take no memory."""


def amazon_data(*, users: int, items: int, tokens: int, pixels: int) -> RecData:
    """Returns users' items in order, of which training has all but the last two.

    Args:
        users: all of whom train.
        items: in the catalogue.
        tokens: of an item's text in the mean, from half to one and a half times as many.
        pixels: height and width of its image.
    """
    rng = np.random.default_rng(0)
    lengths = FEWEST + np.minimum(rng.geometric(STOPS, users) - 1, MOST - FEWEST)
    offsets: Int64 = np.concatenate([[0], np.cumsum(lengths)])
    said, titles = texts(rng, items, tokens)
    return RecData(
        "drawn",
        "0" * 12,
        Sequences(offsets, _met(rng, items, int(offsets[-1]))),
        offsets[1:] - HELD_OUT,
        nobody(),
        nobody(),
        Catalogue(np.arange(users)),
        Catalogue(np.arange(items), titles),
        side=said | {"item_images": images(rng, items, pixels)},
    )


def images(rng: np.random.Generator, items: int, pixels: int) -> NDArray[Any]:
    """Returns images, uint8 [items, pixels, pixels, 3]: noise for the first few items, black for the others.

    What is black was never written, so that a system with virtual memory keeps no page of it.
    """
    made = np.zeros((items, pixels, pixels, 3), np.uint8)
    made[:DIFFERENT] = rng.integers(0, 256, made[:DIFFERENT].shape, dtype=np.uint8)
    return made


def _met(rng: np.random.Generator, items: int, places: int) -> Int32:
    """Returns what users have met, int32 [places], each item once where that is possible."""
    once = np.arange(items, dtype=np.int32)[:places]
    return rng.permutation(np.concatenate([once, popular(rng, items, places - len(once), FLAT)]))
