"""Users as bags of their training items, for models that read a user by what they met."""

from __future__ import annotations

import numpy as np
import torch

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.pairs import batch_size_for
from effrec_cli.data.shuffle import shuffled
from effrec_cli.data.types import RecData
from effrec_cli.data.windows import int64_tensors, part_of
from effrec_cli.errors import DataError
from effrec_cli.evaluation.blocks import flat_ranges


class UserBags:
    """Batches of users, a pure function of (seed, epoch, position); implements `Batches`.

    A sample is a user with a training row; each is met once an epoch, in an order drawn anew.

    Args:
        data: the prepared dataset, or a sample of it.
        batch_size: users in a step at most, over all ranks and micro-batches; None is `batch_size_for`.
        seed: the run's seed.

    Attributes:
        batch_size: as given, or chosen.
        num_samples: users in an epoch.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        DataError: there is no training row.
    """

    def __init__(self, data: RecData, batch_size: int | None, seed: int) -> None:
        self.seed, self._items, self._weights = seed, data.sequences.items, data.train_weights
        start, end = np.asarray(data.train_start), np.asarray(data.train_end)
        named = end > start
        if not named.any():
            raise DataError(
                "There is no training row.",
                where=f"dataset {data.name}",
                fix="loosen dataset.filter, or sample more of the data",
            )
        self._start, self._end = start[named], end[named]
        self._first = (np.cumsum(end - start) - (end - start))[named]
        self._mean = 1.0 if self._weights is None else float(self._weights.mean(dtype=np.float64))
        self.num_samples = len(self._start)
        self.batch_size = batch_size or batch_size_for(self.num_samples)
        self.steps_per_epoch = -(-self.num_samples // self.batch_size)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b users of the share and the n different items that each has met: `items` int64
        [n], user after user; `offsets` int64 [b + 1], where each user's begin; `weights` float32 [n] where
        training rows have weights, of mean 1 over all rows; of an item that a user met twice, their sum.
        """
        low, high = (self.num_samples * at // self.steps_per_epoch for at in (position, position + 1))
        users = shuffled(np.arange(low, high), self.num_samples, seed=self.seed, epoch=epoch)
        first, last = part_of(len(users), share)
        mine = users[first:last]
        places, owner = flat_ranges(self._start[mine], self._end[mine])
        cells = owner * (1 << 32) + self._items[places]
        cells, back = np.unique(cells, return_inverse=True)
        counts = np.bincount(cells >> 32, minlength=len(mine))
        tensors = int64_tensors(
            items=cells & ((1 << 32) - 1), offsets=np.concatenate([[0], np.cumsum(counts)])
        )
        if self._weights is not None:
            rows, _ = flat_ranges(self._first[mine], self._first[mine] + (self._end - self._start)[mine])
            weights = np.bincount(back, self._weights[rows] / self._mean, minlength=len(cells))
            tensors["weights"] = torch.from_numpy(weights.astype(np.float32))
        return Batch(tensors, len(mine), len(users), step, first_target=first)
