"""How well the best possible ranker does: the one that knows the law each held-out item was drawn from.

It knows the world's parameters, the user's interests at that moment, the item before, and what the user could
not pick (seen, not released). Ranking by that law is optimal for every metric here, each of which falls with
the rank of the one relevant item. A model sees histories only, so no model can be expected to do better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.draws import Float64
from effrec_cli.data.synthetic.histories import Block, make_block
from effrec_cli.data.synthetic.users import BLOCK_USERS
from effrec_cli.data.synthetic.world import (
    FOLLOW_WEIGHTS,
    INTEREST_WEIGHTS,
    Int32,
    Int64,
    World,
    users_of,
)
from effrec_cli.data.types import RecData

KS = (1, 5, 10, 20, 50, 100)
ENOUGH_CASES = 10_000
"""Blocks of users are taken in order until they hold that many cases."""


@dataclass(frozen=True)
class Moment:
    """What the best ranker knows when one item is picked.

    Attributes:
        interests: [M] the user's clusters.
        before: the item before, or -1.
        time: Unix seconds.
        had: items picked earlier.
    """

    interests: Int32
    before: int
    time: int
    had: Int32


def law(world: World, moment: Moment, items: NDArray[Any]) -> Float64:
    """Returns the unnormalised probability of each item as the next, before seen and unreleased ones go.

    Section 3 of docs/simulator.md: a follow term, an interest term and an exploration term.
    """
    config = world.config
    edges = world.cluster_edges
    clusters = world.clusters(items)
    chance = np.full(len(items), config.explore / edges[-1])
    for cluster, share in zip(moment.interests, INTEREST_WEIGHTS, strict=True):
        mass = edges[cluster + 1] - edges[cluster]
        chance[clusters == cluster] += (1 - config.follow - config.explore) * share / mass
    chance *= world.weights(items)
    if moment.before >= 0:
        for successor, share in zip(world.successors[moment.before], FOLLOW_WEIGHTS, strict=True):
            chance[items == successor] += config.follow * share
    return chance


def rank(world: World, moment: Moment, target: int, catalogue: NDArray[np.bool_]) -> int:
    """Returns how many allowed items of the `catalogue` (bool [V]) the law puts above `target`.

    The answer is exact below `KS[-1]`; from there on it is some number not below `KS[-1]`.
    """
    bar = law(world, moment, np.array([target]))[0]
    rivals, places, all_found = np.empty(0, np.int64), 256, False
    while len(rivals) < KS[-1] and not all_found:
        found, all_found = _candidates(world, moment, bar, places)
        rivals = found[law(world, moment, found) > bar]
        allowed = catalogue[rivals] & (world.releases[rivals] <= moment.time)
        rivals = rivals[allowed & ~np.isin(rivals, moment.had)]
        places *= 8
    return len(rivals)


def _candidates(world: World, moment: Moment, bar: float, places: int) -> tuple[Int64, bool]:
    """Returns items among which all those lie whose law exceeds `bar`, and whether that is so.

    Apart from the successors, the law inside a cluster is a factor times a weight that falls along the
    cluster, so the items above the bar are the first ones of each cluster. Of a liked cluster `places` are
    looked at, and as many of all others together.
    """
    config, edges = world.config, world.cluster_edges
    masses = edges[moment.interests + 1] - edges[moment.interests]
    explore = config.explore / edges[-1]
    liking = (1 - config.follow - config.explore) * sum(INTEREST_WEIGHTS) / masses.min() + explore
    deep, shallow = _depth(world, liking / bar), _depth(world, explore / bar)
    few = 1 + places // world.num_clusters
    liked = world.starts[np.unique(moment.interests), None] + np.arange(min(deep, places))
    others = world.starts[:-1, None] + np.arange(min(shallow, few))
    followers = world.successors[moment.before] if moment.before >= 0 else np.empty(0, np.int32)
    found = np.unique(np.concatenate([liked.ravel(), others.ravel(), followers]))
    return found[found < world.num_items], deep <= places and shallow <= few


def _depth(world: World, ratio: float) -> int:
    """Returns how many first items of a cluster can have a weight above 1 / `ratio`, at most."""
    largest = -(-world.num_items // world.num_clusters)
    return int(min(largest, (ratio * (1 + 1e-9)) ** (1 / world.config.popularity_exponent)))


def ceiling(world: World, data: RecData) -> dict[str, float] | None:
    """Returns the best ranker's mean metrics over the test cases, or None where a case has several targets.

    Keys are `metric@k` for ndcg, hr, recall, mrr, map and precision, k in `KS`; `cases` counts the cases
    used and `ndcg@10_stderr` is the standard error that a sample of cases leaves.
    """
    cases = data.test
    if not len(cases) or (cases.target_end - cases.target_start != 1).any():
        return None
    ranks = np.concatenate(list(_ranks(world, data)))
    scores = {f"{name}@{k}": float(gain.mean()) for k in KS for name, gain in gains(ranks, k).items()}
    spread = gains(ranks, 10)["ndcg"].std() / np.sqrt(len(ranks))
    return scores | {"cases": float(len(ranks)), "ndcg@10_stderr": float(spread)}


def gains(ranks: Int64, k: int) -> dict[str, Float64]:
    """Returns each case's metrics at `k` for one relevant item with so many items ranked above it."""
    hit = (ranks < k).astype(np.float64)
    reciprocal = hit / (ranks + 1)
    return {
        "ndcg": hit / np.log2(ranks + 2.0),
        "hr": hit,
        "recall": hit,
        "mrr": reciprocal,
        "map": reciprocal,
        "precision": hit / k,
    }


def _ranks(world: World, data: RecData) -> Iterator[Int64]:
    """Yields the best ranker's ranks of the test cases, block of users after block."""
    catalogue = np.zeros(world.num_items, dtype=bool)
    catalogue[world.items_of(data.items.ids)] = True
    users = users_of(data.users.ids[data.test.users])
    done = 0
    for number in np.unique(users // BLOCK_USERS):
        which = np.flatnonzero(users // BLOCK_USERS == number)
        block = make_block(world, int(number))
        targets = world.items_of(data.items.ids[data.sequences.items[data.test.target_start[which]]])
        pairs = zip(users[which] - number * BLOCK_USERS, targets, strict=True)
        moments = ((moment_of(block, int(user), int(target)), int(target)) for user, target in pairs)
        yield np.array([rank(world, moment, target, catalogue) for moment, target in moments], dtype=np.int64)
        done += len(which)
        if done >= ENOUGH_CASES:
            return


def moment_of(block: Block, user: int, target: int) -> Moment:
    """Returns the moment at which a block's user picked `target`, which happens once at most."""
    first, stop = block.offsets[user], block.offsets[user + 1]
    at = int(np.flatnonzero(block.items[first:stop] == target)[0])
    had = block.items[first : first + at]
    row = first + at
    return Moment(block.interests[row], int(had[-1]) if at else -1, int(block.times[row]), had)
