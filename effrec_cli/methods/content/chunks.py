"""Micro-batches of the encoder: which items are encoded together, on which rank, under which random seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.seeds import mix

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Items that go through the encoder at once.

    Encoding a chunk is a function of the weights and of the chunk alone: its seed is planted first, so that
    a second encoding, for the backward pass, draws the dropout of the first (papers/gram section 1.7).

    Attributes:
        rows: int64 [n], item rows.
        width: tokens of the longest.
        seed: of what the encoder draws.
        rank: who encodes it.
        places: int64 [n], where the rows stand in what was planned.
    """

    rows: Int64
    width: int
    seed: int
    rank: int
    places: Int64

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Limits:
    """What a chunk may hold.

    Attributes:
        tokens: items times the longest's tokens; an item that is longer has a chunk of its own.
        items: or None for any number.
    """

    tokens: int
    items: int | None = None


def plan(rows: Int64, costs: Int64, limits: Limits, *, seed: int, ranks: int = 1) -> list[Chunk]:
    """Returns chunks that hold each of `rows` once, a rank's longest first.

    Items of like length go together, so that little is padded, and ranks get about the same number of
    tokens. The longest first: what memory it takes is known after the first chunk.

    Args:
        rows: int64 [n] item rows; the same one may stand there more than once.
        costs: int64 [V] tokens of every item.
        limits: of a chunk.
        seed: which chunks' seeds are made of.
        ranks: among how many to deal them.
    """
    order = np.argsort(-costs[rows], kind="stable")
    dealt = _owners(len(rows), ranks)
    chunks: list[Chunk] = []
    for rank in range(ranks):
        for places in _cut(order[dealt == rank], costs[rows], limits):
            width = int(costs[rows[places[0]]])
            chunks.append(Chunk(rows[places], width, mix(seed, len(chunks)), rank, places))
    return chunks


def packed(chunks: list[Chunk], limits: Limits) -> list[list[Chunk]]:
    """Returns chunks in groups, each as large as one chunk may be: for what small ones are too little for."""
    groups: list[list[Chunk]] = []
    items = tokens = 0
    for chunk in chunks:
        items, tokens = items + len(chunk), tokens + len(chunk) * chunk.width
        full = tokens > limits.tokens or (limits.items is not None and items > limits.items)
        if full or not groups:
            groups.append([])
            items, tokens = len(chunk), len(chunk) * chunk.width
        groups[-1].append(chunk)
    return groups


def _owners(count: int, ranks: int) -> Int64:
    """Returns the owners of items in order of length, int64 [count]: dealt to and fro, for even sums."""
    turn, at = np.divmod(np.arange(count), ranks)
    return np.where(turn % 2 == 0, at, ranks - 1 - at)


def _cut(places: Int64, costs: Int64, limits: Limits) -> list[Int64]:
    """Returns places in order of length, longest first, cut into runs that keep to the limits."""
    runs, first = [], 0
    while first < len(places):
        fitting = max(1, limits.tokens // max(1, int(costs[places[first]])))
        size = fitting if limits.items is None else min(fitting, limits.items)
        runs.append(places[first : first + size])
        first += size
    return runs
