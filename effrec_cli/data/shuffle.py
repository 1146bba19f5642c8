"""Random orders and numbers that are computed from a key, not stored."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 12
"""Feistel rounds; four make a good permutation of a large domain, small domains need more."""

UInt64 = NDArray[np.uint64]


def shuffled(
    positions: NDArray[np.int64], count: int, *, seed: int, epoch: int, stream: tuple[int, ...] = ()
) -> NDArray[np.int64]:
    """Returns which of `count` samples stand at these positions of the epoch's order.

    A keyed permutation of 0 .. count - 1: a Feistel network over pairs of numbers below ceil(sqrt(count)),
    walked on from results that fall outside (Black and Rogaway 2002, generalised Feistel and cycle-walking).
    No table is kept, so an order of a hundred million samples costs no memory and starts in the middle.

    Args:
        positions: int64 [n], each in 0 .. count - 1.
        count: samples in an epoch.
        seed: the run's seed.
        epoch: pass over the data.
        stream: tells orders for unlike purposes apart.
    """
    side = np.uint64(math.isqrt(max(0, count - 1)) + 1)
    sequence = np.random.SeedSequence([seed, epoch], spawn_key=stream)
    keys = sequence.generate_state(ROUNDS, np.uint64).astype(np.uint64)
    result = _feistel(positions.astype(np.uint64), side, keys)
    outside = np.flatnonzero(result >= count)
    while len(outside):
        result[outside] = _feistel(result[outside], side, keys)
        outside = outside[result[outside] >= count]
    return result.astype(np.int64)


def draw_below(
    bounds: NDArray[np.int64],
    names: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    stream: tuple[int, ...] = (),
) -> NDArray[np.int64]:
    """Returns for each name a number from 0 to its bound - 1, the same for the same name, seed and epoch.

    Args:
        bounds: int64 [n], each 1 or more and far below 2^64.
        names: int64 [n], such as users.
        seed: the run's seed.
        epoch: pass over the data.
        stream: tells draws for unlike purposes apart, whose names may be alike.
    """
    key = (
        np.random.SeedSequence([epoch, seed], spawn_key=stream).generate_state(1, np.uint64).astype(np.uint64)
    )
    return (mix(names.astype(np.uint64) ^ key) % bounds.astype(np.uint64)).astype(np.int64)


def _feistel(values: UInt64, side: np.uint64, keys: UInt64) -> UInt64:
    """Returns the permuted values; both are below side * side."""
    left, right = values // side, values % side
    for key in keys:
        left, right = right, (left + mix(right ^ key) % side) % side
    return left * side + right


def mix(values: UInt64) -> UInt64:
    """Returns 64 well-mixed bits of each value (the finaliser of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
