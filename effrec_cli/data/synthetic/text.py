"""Item titles: words that tell the cluster, and a little of the item's quality and difficulty.

The tokenizer is the list of words: a title's tokens are its words' places in `vocabulary`.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.content import ITEM_BLOCK, block_range, gather
from effrec_cli.data.synthetic.draws import Float32, Purpose, generator, normal
from effrec_cli.data.synthetic.world import Int32, Int64, World

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GRADES = ("awful", "poor", "decent", "good", "superb")
"""Words for quality, worst first."""
LEVELS = ("trivial", "easy", "medium", "hard", "fiendish")
"""Words for difficulty, easiest first."""
TOPIC_WORDS = 12
"""Words of one cluster; clusters share words only where there are more than `_MOST_TOPICS` of them."""
_COMMON, _NAMES, _MOST_TOPICS = 64, 512, 20_000 // TOPIC_WORDS
_PRESENT = (0.5, 0.5, 1.0, 1.0, 0.7, 0.4, 0.6, 0.3, 1.0)
"""Probability of each place of a title: grade, level, four of the topic, two common words, a name."""
_SHARPNESS = 0.9


@cache
def vocabulary(num_clusters: int) -> list[str]:
    """Returns all words, one a token id: special ones, grades, levels, common, topics', names."""
    made = _COMMON + TOPIC_WORDS * _topics(num_clusters) + _NAMES
    return [*SPECIAL, *GRADES, *LEVELS, *(_word(number) for number in range(made))]


def _topics(num_clusters: int) -> int:
    return min(num_clusters, _MOST_TOPICS)


def _word(number: int) -> str:
    """Returns a pronounceable word, different for each number: two syllables, then three."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    base = len(syllables)
    count = 2 if number < base**2 else 3
    return "".join(syllables[number // base**place % base] for place in range(count))


def tokens(world: World, items: NDArray[Any]) -> tuple[Int32, Int64]:
    """Returns the items' titles as tokens: all of them int32 [total], and offsets int64 [n + 1]."""
    padded = gather(items, ITEM_BLOCK, lambda block: _block(world, block), (len(_PRESENT),), np.int32)
    present = padded != 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return padded[present], offsets


def titles(world: World, items: NDArray[Any]) -> NDArray[np.str_]:
    """Returns the items' titles, words with blanks between."""
    words = np.array(vocabulary(world.num_clusters), dtype=object)
    flat, offsets = tokens(world, items)
    spelt = words[flat]
    return np.array([" ".join(spelt[first:last]) for first, last in pairwise(offsets)], dtype=np.str_)


def _block(world: World, block: int) -> Int32:
    """Returns the titles of a block of items, int32 [n, places]; 0 where a word is missing."""
    rng = generator(world.config.seed, Purpose.TEXT, block)
    items = block_range(block, ITEM_BLOCK, world.num_items)
    size = len(items)
    topics = _topics(world.num_clusters)
    grades = len(SPECIAL)
    levels = grades + len(GRADES)
    common = levels + len(LEVELS)
    topic = common + _COMMON + TOPIC_WORDS * (world.clusters(items) % topics)
    names = common + _COMMON + TOPIC_WORDS * topics
    # The square makes a topic's first words the frequent ones.
    within = (TOPIC_WORDS * rng.random((size, 4)) ** 2).astype(np.int64)
    words = np.column_stack(
        [
            grades + _fifth(world.quality[items], normal(rng, size)),
            levels + _fifth(world.difficulty[items], normal(rng, size)),
            topic[:, None] + within,
            common + (_COMMON * rng.random((size, 2)) ** 2).astype(np.int64),
            names + (_NAMES * rng.random(size)).astype(np.int64),
        ]
    )
    return np.where(rng.random(words.shape) < np.array(_PRESENT), words, 0).astype(np.int32)


def _fifth(values: Float32, noise: Float32) -> Int64:
    """Returns the fifth, 0 to 4, that a standard normal value seems to be in, seen through noise."""
    seen = _SHARPNESS * values + np.sqrt(1 - _SHARPNESS**2) * noise
    return np.searchsorted([-0.8416, -0.2533, 0.2533, 0.8416], seen)
