"""Which items a step needs: batches that name them once, beside positions into them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.batches import Batch, Batches, Share
from effrec_cli.methods.content.task import PAD_ITEM

Int64 = NDArray[np.int64]

ITEMS = "items"
"""In `Batch.host`: the rows, int64 [U], that the vectors of this micro-batch stand for, in their order."""

PART = "part"
"""In `Batch.host`: int64 [2], the number of this micro-batch in its step, and the rank that encodes its
items, 0 where all ranks do together. Parts that are encoded apart draw apart."""


class ItemBatches:
    """A task's batches with positions in place of item rows; implements `Batches`.

    `Batch.host["items"]` names the rows to be encoded. What makes them is known on the host, ahead of time,
    so that no device is asked for it.

    Args:
        batches: of the task.
        item_tensors: their tensors that hold item rows.
        unique: name each row once, ascending; otherwise once for every occurrence, in order.
        together: name the rows of all ranks' shares of the micro-batch, so that ranks agree on them without
            a word; for `unique` alone.
    """

    def __init__(
        self, batches: Batches, item_tensors: tuple[str, ...], *, unique: bool = True, together: bool = False
    ) -> None:
        self._batches, self._names = batches, item_tensors
        self._unique, self._together = unique, together
        self.num_samples, self.steps_per_epoch = batches.num_samples, batches.steps_per_epoch

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns the share of a step, its item tensors holding positions into `host["items"]`."""
        own = self._batches.batch(epoch, position, share, step)
        part = np.array([share.micro, 0 if self._together else share.rank])
        own = replace(own, host=own.host | {PART: part})
        if not self._unique:
            return self._by_occurrence(own)
        shares = [own]
        if self._together:
            others = (replace(share, rank=rank) for rank in range(share.ranks) if rank != share.rank)
            shares += [self._batches.batch(epoch, position, other, step) for other in others]
        items = np.unique(np.concatenate([self._rows(each) for each in shares]))
        positions = {name: _positions(own.tensors[name], items) for name in self._names}
        return replace(own, tensors=own.tensors | positions, host=own.host | {ITEMS: items})

    def _rows(self, batch: Batch) -> Int64:
        """Returns the item rows at all places of a batch that hold one, int64 [n]."""
        flat = np.concatenate([batch.tensors[name].numpy().ravel() for name in self._names])
        return flat[flat != PAD_ITEM]

    def _by_occurrence(self, own: Batch) -> Batch:
        """Returns the batch with a position of its own for each place that holds an item."""
        positions, before = {}, 0
        for name in self._names:
            real = own.tensors[name] != PAD_ITEM
            numbers = (real.flatten().cumsum(0) - 1 + before).view_as(real)
            positions[name] = torch.where(real, numbers, 0)
            before += int(real.sum())
        return replace(own, tensors=own.tensors | positions, host=own.host | {ITEMS: self._rows(own)})


def _positions(rows: Tensor, items: Int64) -> Tensor:
    """Returns where each of `rows` stands in the ascending `items`; 0 for padding."""
    found = np.searchsorted(items, rows.numpy())
    return torch.from_numpy(np.where(rows.numpy() == PAD_ITEM, 0, found))
