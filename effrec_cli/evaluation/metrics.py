"""What each ranking metric is: a function of where the relevant items stand in the lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.types import RecData
from effrec_cli.evaluation.blocks import flat_ranges

ONE = float(1 << 36)
"""Sums are kept in units of 2^-36, as integers: the same in every order, so that neither the size of blocks
nor the number of ranks changes a metric. Rounding is below 1e-11; 134 million cases fit."""


@dataclass(frozen=True)
class Lists:
    """The recommendations of B cases, judged.

    Attributes:
        hits: bool [B, K]; whether the item at each place is relevant.
        shown: bool [B, K]; whether there is an item at each place.
        relevant: int64 [B]; number of distinct relevant items, in the list or not.
        information: float64 [B, K]; the items' normalised self-information, or None when not asked for.
        ks: int64 [C]; cut-offs, which may lie beyond K.
    """

    hits: Tensor
    shown: Tensor
    relevant: Tensor
    information: Tensor | None
    ks: Tensor

    @cached_property
    def places(self) -> Tensor:
        """Returns 1, 2 ... K as float64 [K]."""
        return torch.arange(1, self.hits.shape[1] + 1, dtype=torch.float64, device=self.hits.device)

    @cached_property
    def ideal(self) -> Tensor:
        """Returns min(k, number of relevant items) for each case and cut-off, int64 [B, C], at least 1."""
        return torch.minimum(self.relevant[:, None], self.ks).clamp(min=1)

    @cached_property
    def hits_so_far(self) -> Tensor:
        """Returns the number of hits up to each place, int64 [B, K]."""
        return self.hits.long().cumsum(1)

    def total(self, gains: Tensor) -> Tensor:
        """Returns the sum of `gains` [B, K] over the first k places, float64 [B, C]."""
        # A product with 0s and 1s instead of cumsum, which CUDA cannot do deterministically.
        upto = (self.places[:, None] <= self.ks).double()
        return gains.double() @ upto


def hr(lists: Lists) -> Tensor:
    """Returns 1 where any relevant item is among the first k, [B, C]."""
    return (lists.total(lists.hits) > 0).double()


def recall(lists: Lists) -> Tensor:
    """Returns the share of the relevant items that are among the first k, [B, C]."""
    return lists.total(lists.hits) / lists.relevant.clamp(min=1)[:, None]


def precision(lists: Lists) -> Tensor:
    """Returns the share of k places that hold a relevant item, [B, C]."""
    return lists.total(lists.hits) / lists.ks


def mrr(lists: Lists) -> Tensor:
    """Returns one over the place of the first relevant item, 0 when it is not among the first k, [B, C]."""
    first = lists.hits & (lists.hits_so_far == 1)
    return lists.total(first / lists.places)


def ndcg(lists: Lists) -> Tensor:
    """Returns the discounted gain log2(1 + place)^-1 of hits over that of the best possible list, [B, C]."""
    discounts = 1 / torch.log2(1 + lists.places)
    best = discounts.cpu().cumsum(0).to(discounts.device)
    return lists.total(lists.hits * discounts) / best[lists.ideal - 1]


def average_precision(lists: Lists) -> Tensor:
    """Returns the precision at each hit, summed over the first k and divided by min(k, relevant), [B, C]."""
    return lists.total(lists.hits * lists.hits_so_far / lists.places) / lists.ideal


def surprisal(lists: Lists) -> Tensor:
    """Returns the mean self-information of the items among the first k, [B, C]."""
    assert lists.information is not None, "asked for without item information"
    shown = lists.total(lists.shown).clamp(min=1)
    return lists.total(lists.information * lists.shown) / shown


PER_CASE: dict[str, Callable[[Lists], Tensor]] = {
    "ndcg": ndcg,
    "hr": hr,
    "recall": recall,
    "mrr": mrr,
    "map": average_precision,
    "precision": precision,
    "surprisal": surprisal,
}


def item_information(data: RecData) -> NDArray[np.float64]:
    """Returns the normalised self-information of each item, float64 [V], 1 for the rarest.

    -log2(n_i / N) / log2(N), where n_i of the N training users met item i (papers/cce section 3.3); an item
    that none met counts as met by one. A sample counts as what it was taken from, so that its metrics stand
    beside those of training on all.
    """
    users, met = _users_by_item(data.unsampled())
    if users < 2:
        return np.ones(data.num_items)
    return -np.log2(np.maximum(met, 1) / users) / np.log2(users)


def _users_by_item(data: RecData, rows: int = 1 << 22) -> tuple[int, NDArray[np.int64]]:
    """Returns the number of training users, and how many of them met each item; some rows at a time."""
    start, end = data.train_start, data.train_end
    met = np.zeros(data.num_items, dtype=np.int64)
    first = 0
    while first < data.num_users:
        last = max(first + 1, int(np.searchsorted(end, start[first] + rows)))
        positions, owner = flat_ranges(start[first:last], end[first:last])
        # Sorted here because np.unique goes by a hash table, many times slower.
        cells = np.sort(owner * data.num_items + data.sequences.items[positions])
        distinct = cells[np.diff(cells, prepend=-1) > 0]
        met += np.bincount(distinct % data.num_items, minlength=data.num_items)
        first = last
    return int((end > start).sum()), met
