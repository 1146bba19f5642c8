"""Random numbers that are a function of (seed, purpose, block) and of nothing else.

Only `Generator.random` is used, and every other law is made from it by a formula, so that a new release of
numpy with faster samplers does not change the data.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


class Purpose(IntEnum):
    """What a stream of random numbers is for; the numbers are part of the data's definition."""

    ITEM_IDS = 1
    RELEASES = 2
    SUCCESSORS = 3
    CLUSTERS = 4
    QUALITY = 5
    TIMELINE = 6
    WALK = 7
    TRAITS = 8
    RATINGS = 9
    TEXT = 10
    IMAGES = 11
    PROTOTYPES = 12
    ITEM_FEATURES = 13
    ITEM_CATEGORIES = 14
    USER_CATEGORIES = 15
    USER_FEATURES = 16
    CODES = 17
    IMPRESSIONS = 18
    ANSWERS = 19
    DIFFICULTY = 20
    FLAVOUR = 21


def generator(seed: int, purpose: Purpose, block: int = 0) -> np.random.Generator:
    """Returns the stream of one purpose and block; streams of different keys are independent."""
    key = np.random.SeedSequence(entropy=seed, spawn_key=(int(purpose), block))
    return np.random.Generator(np.random.PCG64(key))


def normal(rng: np.random.Generator, *shape: int) -> Float32:
    """Returns standard normal draws, float32 (Box and Muller, 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-rng.random(shape)))
    angle = (2.0 * np.pi) * rng.random(shape)
    return np.asarray(radius * np.cos(angle), dtype=np.float32)


def exponential(rng: np.random.Generator, *shape: int) -> Float64:
    """Returns draws of the exponential law with mean 1."""
    return -np.log1p(-rng.random(shape))


def permutation(rng: np.random.Generator, size: int) -> NDArray[np.int32]:
    """Returns the numbers 0 to size - 1 in a random order."""
    return np.argsort(rng.random(size)).astype(np.int32)


def choose(probabilities: tuple[float, ...], uniform: Float64) -> NDArray[np.intp]:
    """Returns for each uniform draw the number of the alternative it falls on."""
    edges = np.cumsum(probabilities)[:-1]
    return np.searchsorted(edges, uniform, side="right")


def sigmoid(logits: Float64) -> Float64:
    """Returns 1 / (1 + exp(-logits))."""
    return 1.0 / (1.0 + np.exp(-logits))
