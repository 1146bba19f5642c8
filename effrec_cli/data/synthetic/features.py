"""Features of items and users: what they tell about the world, each through noise.

Quality, flavour and taste decide ratings and clicks but never who picks what, so no factorisation of the
interaction matrix can see them; appeal, release and cluster codes tell about items nobody has picked yet, and
the declared cluster about interests a user has not shown yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.content import ITEM_BLOCK, block_range, gather
from effrec_cli.data.synthetic.draws import Float32, Purpose, generator, normal
from effrec_cli.data.synthetic.users import BLOCK_USERS, traits
from effrec_cli.data.synthetic.world import LOG_END, LOG_START, Int32, Int64, World

_CODE, _NOISE = 8, 4
ITEM_FEATURES = (
    *("quality", "appeal", "release", "flavour"),
    *(f"code_{n}" for n in range(_CODE)),
    *(f"noise_{n}" for n in range(_NOISE)),
)
"""Columns of `item_features`."""
USER_FEATURES = (
    *("leniency", "taste", "skill"),
    *(f"declared_{n}" for n in range(_CODE)),
    *(f"noise_{n}" for n in range(_NOISE)),
)
"""Columns of `user_features`."""
ITEM_CATEGORIES = ("genre", "maker", "fresh")
"""Columns of `item_categories`; the maker tells nothing."""
USER_CATEGORIES = ("declared", "region")
"""Columns of `user_categories`; the region tells nothing."""
_GENRES, _MAKERS, _REGIONS = 8, 50, 10
_MISLABELLED = 0.1


def item_features(world: World, items: NDArray[Any]) -> Float32:
    """Returns float32 [n, len(ITEM_FEATURES)]."""
    codes = _codes(world)

    def make(block: int) -> Float32:
        chosen = block_range(block, ITEM_BLOCK, world.num_items)
        rng = generator(world.config.seed, Purpose.ITEM_FEATURES, block)
        size, releases = len(chosen), world.releases[chosen]
        release = np.where(releases > 0, (releases - LOG_START) / (LOG_END - LOG_START), 0)
        columns = [
            visible(world.quality[chosen], normal(rng, size), 0.9),
            visible(_appeal(world, chosen), normal(rng, size), 0.8),
            release,
            world.flavour[chosen],
            codes[world.clusters(chosen)] + 0.7 * normal(rng, size, _CODE),
            normal(rng, size, _NOISE),
        ]
        return np.column_stack(columns).astype(np.float32)

    return gather(items, ITEM_BLOCK, make, (len(ITEM_FEATURES),), np.float32)


def item_categories(world: World, items: NDArray[Any]) -> Int32:
    """Returns int32 [n, len(ITEM_CATEGORIES)]; a tenth of the genres are wrong."""

    def make(block: int) -> Int32:
        chosen = block_range(block, ITEM_BLOCK, world.num_items)
        rng = generator(world.config.seed, Purpose.ITEM_CATEGORIES, block)
        genre = _mislabel(rng, world.clusters(chosen) % _GENRES, min(_GENRES, world.num_clusters))
        maker = (rng.random(len(chosen)) * _MAKERS).astype(np.int64)
        return np.column_stack([genre, maker, world.releases[chosen] > 0]).astype(np.int32)

    return gather(items, ITEM_BLOCK, make, (len(ITEM_CATEGORIES),), np.int32)


def user_features(world: World, users: NDArray[Any]) -> Float32:
    """Returns float32 [n, len(USER_FEATURES)]."""
    codes = _codes(world)

    def make(block: int) -> Float32:
        people = traits(world, block)
        rng = generator(world.config.seed, Purpose.USER_FEATURES, block)
        size = len(people.declared)
        columns = [
            visible(people.leniency, normal(rng, size), 0.8),
            people.taste,
            visible(people.skill, normal(rng, size), 0.8),
            codes[people.declared] + 0.7 * normal(rng, size, _CODE),
            normal(rng, size, _NOISE),
        ]
        return np.column_stack(columns).astype(np.float32)

    return gather(users, BLOCK_USERS, make, (len(USER_FEATURES),), np.float32)


def user_categories(world: World, users: NDArray[Any]) -> Int32:
    """Returns int32 [n, len(USER_CATEGORIES)]; a tenth of the declared clusters are wrong."""

    def make(block: int) -> Int32:
        declared = traits(world, block).declared
        rng = generator(world.config.seed, Purpose.USER_CATEGORIES, block)
        region = (rng.random(len(declared)) * _REGIONS).astype(np.int64)
        return np.column_stack([_mislabel(rng, declared, world.num_clusters), region]).astype(np.int32)

    return gather(users, BLOCK_USERS, make, (len(USER_CATEGORIES),), np.int32)


def visible(values: Float32, noise: Float32, share: float) -> Float32:
    """Returns standardised values seen through standard normal noise; correlates `share` with the truth."""
    return (share * values + np.sqrt(1 - share**2) * noise).astype(np.float32)


def _codes(world: World) -> Float32:
    """Returns a vector for each cluster, float32 [K, 8], standard normal."""
    return normal(generator(world.config.seed, Purpose.CODES), world.num_clusters, _CODE)


def _appeal(world: World, items: Int64) -> Float32:
    """Returns an item's place in the popularity of its cluster, standardised; high for the popular."""
    clusters = world.clusters(items)
    first, last = world.starts[clusters], world.starts[clusters + 1]
    place = (items - first + 0.5) / (last - first)
    return (np.sqrt(12) * (0.5 - place)).astype(np.float32)


def _mislabel(rng: np.random.Generator, labels: Int64, count: int) -> Int64:
    """Returns the labels, a tenth of them replaced by any of `count`."""
    wrong = rng.random(len(labels)) < _MISLABELLED
    return np.where(wrong, (rng.random(len(labels)) * count).astype(np.int64), labels)
