"""Training task next_item, told from the items of a step's windows and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.types import Int64, RecData
from effrec_cli.data.windows import Windows, int64_tensors


class InBatches(NextItemBatches):
    """Windows of the next item, and the items of all windows of the step; implements `Batches`.

    A window of l inputs holds l + 1 items: its targets, and before them the item that nothing foretells. The
    *columns* of a step are the different items of all its windows, ascending: the same for every rank and
    micro-batch. Which of them a row is told from is the loss's to say (`methods.next_item.in_batch`); for
    that it is known how often each item stands in the step, and in which windows.

    Args:
        data: the prepared dataset.
        batch_size: windows in a step, over all ranks and micro-batches.
        max_length: L, inputs in a window at most.
        window: `slide` or `last`.
        seed: the run's seed.

    Raises:
        DataError: no user has two training items.
    """

    def __init__(self, data: RecData, batch_size: int, max_length: int, window: str, seed: int) -> None:
        super().__init__(data, batch_size, max_length, window, seed)
        counts = data.train_counts()
        with np.errstate(divide="ignore"):  # what training never meets stands in no window
            self._log_p = np.log(counts / counts.sum()).astype(np.float32)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b windows of the share, W wide, their m targets and the step's C columns:
        `inputs` int64 [b, W] item rows, padded on the right with -1; `lengths` int64 [b]; `valid` int64 [m],
        the flat places of items with a target; `candidates` int64 [C], the columns' item rows; `labels` int64
        [m], the targets' columns; `members` int64 [b, W + 1], the columns of a window's items, C where there
        is none; `log_times` float32 [C], of how often each stands in the step's windows; `log_p` float32 [C],
        of its share of all training rows.
        """
        windows = self.cuts.step(epoch, position, self.steps_per_epoch)
        own = self._part(windows, share, step)
        columns, times = np.unique(self._items_of(windows), return_counts=True)
        inputs, targets, valid = (own.tensors[name].numpy() for name in ("inputs", "targets", "valid"))
        members = np.searchsorted(columns, np.concatenate([inputs[:, :1], targets], axis=1))
        members[:, 1:][targets < 0] = len(columns)
        tensors = int64_tensors(
            inputs=np.where(targets >= 0, inputs, PAD_ITEM),
            lengths=own.tensors["lengths"].numpy(),
            valid=valid,
            candidates=columns,
            labels=members[:, 1:].ravel()[valid],
            members=members,
        )
        weights = {
            "log_times": torch.from_numpy(np.log(times).astype(np.float32)),
            "log_p": torch.from_numpy(self._log_p[columns]),
        }
        return replace(own, tensors={**tensors, **weights})

    def _items_of(self, windows: Windows) -> Int64:
        """Returns the items of some windows, first ones and targets, window after window."""
        column = np.arange(windows.length.max(initial=0) + 1)
        at = (windows.start[:, None] + column)[column <= windows.length[:, None]]
        return self.items[at].astype(np.int64)
