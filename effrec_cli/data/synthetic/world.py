"""The items: clusters, popularity, successors, releases; and the law by which a user picks the next one.

Items are numbered inside the simulator cluster after cluster, the most popular of a cluster first. Raw ids
(`raw_items`) are a random permutation of these numbers with gaps, so that nobody can read a cluster or a
popularity from an id or from a row number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.draws import Float32, Float64, Purpose, generator, normal, permutation
from effrec_cli.errors import ConfigError
from effrec_cli.schema.dataset_synthetic import SyntheticConfig

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

FOLLOW_WEIGHTS = (0.5, 0.25, 0.15, 0.1)
"""v_r: how often an item's r-th successor follows it."""
INTEREST_WEIGHTS = (0.5, 0.3, 0.2)
"""pi_m: how often a user's m-th interest is chosen."""
LOG_START, LOG_END = 1_546_300_800, 1_640_995_200
"""Unix seconds between which the log lies: three years from 1 January 2019, UTC."""
FRESH_PART = 0.1
"""Fresh items are released in this last part of the log."""
_ITEM_BLOCK = 1 << 18
_ITEM_STEP, _ITEM_FIRST = 3, 101
_USER_STEP, _USER_FIRST = 2, 1001


@dataclass(frozen=True)
class World:
    """Everything about the items; O(num_items) memory.

    Args:
        config: the simulator's settings.
    """

    config: SyntheticConfig

    def __post_init__(self) -> None:
        if 2 * self.config.num_clusters > self.config.num_items:
            raise ConfigError(
                "A cluster needs at least two items.",
                where=f"dataset.num_clusters={self.config.num_clusters}",
                fix=f"dataset.num_clusters={self.config.num_items // 2} or fewer",
            )
        if self.config.follow + self.config.explore > 1:
            raise ConfigError(
                "follow and explore are probabilities of different things; their sum is above 1.",
                where=f"dataset.follow={self.config.follow} dataset.explore={self.config.explore}",
                fix=f"dataset.follow={1 - self.config.explore:g}",
            )

    @property
    def num_items(self) -> int:
        """V."""
        return self.config.num_items

    @property
    def num_clusters(self) -> int:
        """K."""
        return self.config.num_clusters

    def clusters(self, items: NDArray[Any]) -> Int64:
        """Returns the cluster of each item, int64."""
        numbers = np.asarray(items, dtype=np.int64)
        return ((numbers + 1) * self.num_clusters - 1) // self.num_items

    @cached_property
    def starts(self) -> Int64:
        """First item of each cluster, and V; int64 [K + 1]."""
        return np.arange(self.num_clusters + 1, dtype=np.int64) * self.num_items // self.num_clusters

    def weights(self, items: NDArray[Any]) -> Float64:
        """Returns w_i = (p + 1 + c / K)^-s of each item, p being its place in cluster c."""
        clusters = self.clusters(items)
        place = items - self.starts[clusters]
        return (place + 1.0 + clusters / self.num_clusters) ** -self.config.popularity_exponent

    @cached_property
    def cumulative(self) -> Float64:
        """Sum of the weights of all items up to and with each; float64 [V]."""
        total = np.empty(self.num_items)
        for cluster in range(self.num_clusters):
            first, last = self.starts[cluster], self.starts[cluster + 1]
            total[first:last] = self.weights(np.arange(first, last))
        return np.cumsum(total, out=total)

    @cached_property
    def cluster_edges(self) -> Float64:
        """Sum of the weights of all clusters before each, and of all; float64 [K + 1]."""
        return np.concatenate([[0.0], self.cumulative[self.starts[1:] - 1]])

    def draw(self, uniform: Float64, clusters: NDArray[Any] | None = None) -> Int64:
        """Returns one item for each uniform draw, by weight, of all items or of the given clusters."""
        edges = self.cluster_edges
        if clusters is None:
            return np.searchsorted(self.cumulative, uniform * edges[-1], side="right").clip(
                max=self.num_items - 1
            )
        low = edges[clusters]
        found = np.searchsorted(self.cumulative, low + uniform * (edges[clusters + 1] - low), side="right")
        return found.clip(self.starts[clusters], self.starts[clusters + 1] - 1)

    def cluster_of_weight(self, uniform: Float64) -> Int64:
        """Returns one cluster for each uniform draw, by the weight of its items."""
        edges = self.cluster_edges
        found = np.searchsorted(edges, uniform * edges[-1], side="right") - 1
        return found.clip(0, self.num_clusters - 1)

    @cached_property
    def next_cluster(self) -> Int64:
        """The cluster that comes after each; one cycle through all; int64 [K]."""
        order = permutation(generator(self.config.seed, Purpose.CLUSTERS), self.num_clusters).astype(np.int64)
        following = np.empty_like(order)
        following[order] = np.roll(order, -1)
        return following

    @cached_property
    def successors(self) -> Int32:
        """S: the items that follow each item, int32 [V, R]; of its cluster, and of the next one."""
        table = np.empty((self.num_items, len(FOLLOW_WEIGHTS)), dtype=np.int32)
        rng = generator(self.config.seed, Purpose.SUCCESSORS)
        for first in range(0, self.num_items, _ITEM_BLOCK):
            rows = table[first : first + _ITEM_BLOCK]
            own = self.clusters(np.arange(first, first + len(rows)))
            for rank in range(rows.shape[1]):
                target = own if rank % 2 == 0 else self.next_cluster[own]
                rows[:, rank] = self.draw(rng.random(len(rows)), target)
        return table

    @cached_property
    def releases(self) -> Int32:
        """Unix second from which each item can be had; 0 for what was always there; int32 [V]."""
        rng = generator(self.config.seed, Purpose.RELEASES)
        fresh = rng.random(self.num_items) < self.config.fresh_share
        ago = rng.random(self.num_items) * FRESH_PART * (LOG_END - LOG_START)
        return np.where(fresh, LOG_END - ago, 0).astype(np.int32)

    @cached_property
    def quality(self) -> Float32:
        """q_i, standard normal, independent of popularity and cluster; float32 [V]."""
        return normal(generator(self.config.seed, Purpose.QUALITY), self.num_items)

    @cached_property
    def flavour(self) -> Float32:
        """y_i, -1 or 1, independent of all else; meets a user's taste in clicks; float32 [V]."""
        coin = generator(self.config.seed, Purpose.FLAVOUR).random(self.num_items)
        return np.where(coin < 0.5, -1, 1).astype(np.float32)

    @cached_property
    def difficulty(self) -> Float32:
        """d_i of an item asked as a question, standard normal, independent of all else; float32 [V]."""
        return normal(generator(self.config.seed, Purpose.DIFFICULTY), self.num_items)

    @cached_property
    def _places(self) -> Int32:
        return permutation(generator(self.config.seed, Purpose.ITEM_IDS), self.num_items)

    @cached_property
    def _items_by_place(self) -> Int32:
        inverse = np.empty_like(self._places)
        inverse[self._places] = np.arange(self.num_items, dtype=np.int32)
        return inverse

    def raw_items(self, items: NDArray[Any]) -> Int64:
        """Returns the raw ids of items."""
        return _ITEM_FIRST + _ITEM_STEP * self._places[items].astype(np.int64)

    def items_of(self, raw: NDArray[Any]) -> Int32:
        """Returns the items that have these raw ids."""
        return self._items_by_place[(np.asarray(raw) - _ITEM_FIRST) // _ITEM_STEP]


def raw_users(users: NDArray[Any]) -> Int64:
    """Returns the raw ids of users, which are numbered from 0."""
    return _USER_FIRST + _USER_STEP * np.asarray(users, dtype=np.int64)


def users_of(raw: NDArray[Any]) -> Int64:
    """Returns the users that have these raw ids."""
    return (np.asarray(raw, dtype=np.int64) - _USER_FIRST) // _USER_STEP
