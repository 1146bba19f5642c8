"""Which training rows a small proxy gets wrong, epoch after epoch (SVP-CF; papers/cadc section 4.2.2)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.sampling.rows import Rows
from effrec_cli.data.shuffle import draw_below, shuffled
from effrec_cli.data.types import Int64
from effrec_cli.schema.sample import ForgettingConfig

_STREAM, _NEGATIVES = (5,), (6,)
_START = 0.1
"""Standard deviation of the factors at the start."""


def forgotten_most(rows: Rows, config: ForgettingConfig) -> NDArray[np.float64]:
    """Returns how often each training row was got wrong, float64 [num_train]; it holds 32 bytes a row.

    In each epoch a row meets `negatives` items drawn from the catalogue, and counts one for each that the
    proxy, before it learns from the row, scores as high as the row's own item or higher. With `propensity`
    the count is multiplied by the larger of what its user and its item weigh (`rarity`).
    """
    proxy = Proxy(rows.data.num_users, rows.data.num_items, config, rows.seed)
    flat = _Flat(rows)
    events = np.zeros(len(rows), dtype=np.float64)
    for epoch in range(config.epochs):
        for first in range(0, len(rows), config.batch_size):
            at = np.arange(first, min(first + config.batch_size, len(rows)))
            some = shuffled(at, len(rows), seed=rows.seed, epoch=epoch, stream=_STREAM)
            negatives = _drawn(some, rows.data.num_items, config.negatives, rows.seed, epoch)
            events[some] += proxy.learn(flat.users(some), flat.items(some), negatives)
    if not config.propensity:
        return events
    every = np.arange(len(rows))
    by_user, by_item = (rarity(counts, len(rows)) for counts in (rows.counts, rows.item_counts()))
    return events * np.maximum(by_user[flat.users(every)], by_item[flat.items(every)])


def rarity(counts: Int64, num_rows: int) -> NDArray[np.float64]:
    """Returns w = 1 + C (n + 1.5)^-0.55 with C = (ln N - 1) 2.5^0.55, of n of all N rows; as `counts`."""
    scale = (math.log(num_rows) - 1) * 2.5**0.55
    return 1 + scale * (counts + 1.5) ** -0.55


def _drawn(some: Int64, num_items: int, negatives: int, seed: int, epoch: int) -> Int64:
    """Returns items drawn for some rows, int64 [n, negatives]: a pure function of row, seed and epoch."""
    names = some[:, None] * negatives + np.arange(negatives)
    return draw_below(np.full(names.shape, num_items), names, seed=seed, epoch=epoch, stream=_NEGATIVES)


class _Flat:
    """Users and items of training rows by the rows' numbers, without a copy of either."""

    def __init__(self, rows: Rows) -> None:
        self._ends = np.cumsum(rows.counts)
        self._shift = np.asarray(rows.data.train_start) - (self._ends - rows.counts)
        self._items = rows.data.sequences.items

    def users(self, some: Int64) -> Int64:
        return np.searchsorted(self._ends, some, side="right")

    def items(self, some: Int64) -> Int64:
        return self._items[some + self._shift[self.users(some)]].astype(np.int64)


class Proxy:
    """A factor model, or item biases alone, that learns to score a row's item above others by plain SGD.

    The loss is the sum over a batch of log(1 + exp(s_negative - s_positive)).

    Args:
        num_users: U.
        num_items: V.
        config: its settings.
        seed: of the factors at the start.
    """

    def __init__(self, num_users: int, num_items: int, config: ForgettingConfig, seed: int) -> None:
        drawn = torch.Generator().manual_seed(seed)
        dim = config.dim if config.proxy == "mf" else 0
        self.users = torch.randn(num_users, dim, generator=drawn) * _START
        self.items = torch.randn(num_items, dim, generator=drawn) * _START
        self.biases = torch.zeros(num_items)
        self.lr = config.lr

    def learn(self, users: Int64, items: Int64, negatives: Int64) -> NDArray[np.int64]:
        """Takes one step, and returns how many negatives each row lost to before it, int64 [n].

        Args:
            users: int64 [n].
            items: int64 [n].
            negatives: int64 [n, K].
        """
        who, own = torch.from_numpy(users), torch.from_numpy(items)[:, None]
        other = torch.from_numpy(negatives)
        behind = self._scores(who, other) - self._scores(who, own)  # [n, K]
        pull = torch.sigmoid(behind) * self.lr
        self._move(who, own, pull.sum(1, keepdim=True), other, -pull)
        return (behind >= 0).sum(1).numpy()

    def _scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Returns scores [n, C] of users [n] and items [n, C]."""
        return (self.users[users][:, None] * self.items[items]).sum(2) + self.biases[items]

    def _move(self, users: Tensor, own: Tensor, up: Tensor, other: Tensor, down: Tensor) -> None:
        """Adds what the scores of `own` [n, 1] and `other` [n, K] gain from the weights they are moved by."""
        items, by = torch.cat([own, other], 1), torch.cat([up, down], 1)
        user_step = (self.items[items] * by[:, :, None]).sum(1)
        item_step = self.users[users][:, None] * by[:, :, None]
        self.items.index_add_(0, items.flatten(), item_step.flatten(0, 1))
        self.biases.index_add_(0, items.flatten(), by.flatten())
        self.users.index_add_(0, users, user_step)
