"""Training task next_item with masks: some items of a window are hidden, and what they were is to be told."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.next_item import IGNORED, NextItemBatches
from effrec_cli.data.shuffle import draw_below
from effrec_cli.data.types import Int64, RecData
from effrec_cli.data.windows import Windows, int64_tensors, part_of

Bool = NDArray[np.bool_]

ITEM, WINDOW, SPARE = (1,), (2,), (3,)
"""Streams of draws: for each item, for each window, and for the window in which none was masked."""

ONE = 1 << 32
"""What shares are drawn below."""


class ClozeBatches(NextItemBatches):
    """Batches of windows with masks (Sun et al. 2019), a pure function of (seed, epoch, position).

    The windows are cut as for the next item, over all n training items of a user with two or more. Each
    item is masked with probability `mask_ratio`, by a draw keyed on its place in the data, whatever window,
    rank or micro-batch it is in. A window in which none was has one masked all the same. With probability
    `last_only` a window has its last item masked and no other, which is what ranking will ask for.

    Args:
        data: the prepared dataset.
        batch_size: windows in a step, over all ranks and micro-batches.
        max_length: L, items in a window at most.
        window: `slide` or `last`.
        seed: the run's seed.
        mask_token: what stands for a masked item.
        mask_ratio: probability that an item is masked.
        last_only: probability that only the last item of a window is.

    Raises:
        DataError: no user has two training items.
    """

    def __init__(
        self,
        data: RecData,
        batch_size: int,
        max_length: int,
        window: str,
        seed: int,
        *,
        mask_token: int,
        mask_ratio: float,
        last_only: float,
    ) -> None:
        super().__init__(data, batch_size, max_length, window, seed)
        self.mask_token = mask_token
        self.mask_ratio = mask_ratio
        self.last_only = last_only

    @property
    def targets_per_epoch(self) -> float:
        """Masked items of an epoch: how many there are on average in the first epoch's windows."""
        lengths = self.cuts.windows(np.arange(self.num_samples), epoch=0).length
        none = (1 - self.mask_ratio) ** lengths  # how likely a window is to need the one that is masked then
        each = self.last_only + (1 - self.last_only) * (self.mask_ratio * lengths + none)
        return float(each.sum())

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b windows of the share, W wide: `inputs` int64 [b, W] with `mask_token` where
        masked, padded on the right with 0; `lengths` int64 [b]; `targets` int64 [b, W], -100 where nothing is
        masked; `valid` int64 [m], the flat places of the m masked items; `tokens` int64 [t], those of all
        items; `masked` int64 [b], how many are masked in each window. Targets are numbered window by window
        through the whole step.
        """
        windows = self.cuts.step(epoch, position, self.steps_per_epoch)
        masks = self._masks(windows, epoch)
        low, high = part_of(len(windows), share)
        tensors = self._with_masks(windows[low:high], masks[low:high])
        before, total = int(masks[:low].sum()), int(masks.sum())
        return Batch(tensors, high - low, total, step, first_target=before)

    def _held(self, data: RecData) -> Int64:
        after_first = super()._held(data)
        return np.where(after_first > 0, after_first + 1, 0)

    def _masks(self, windows: Windows, epoch: int) -> Bool:
        """Returns which items are masked, bool [n, W]; one or more in each window."""
        column = np.arange(windows.width(self.max_length))
        real = column < windows.length[:, None]
        at = windows.start[:, None] + column
        masked = real & self._happens(self.mask_ratio, at, epoch, ITEM)
        spare = draw_below(windows.length, windows.start, seed=self.seed, epoch=epoch, stream=SPARE)
        masked |= ~masked.any(axis=1, keepdims=True) & (column == spare[:, None])
        only_last = self._happens(self.last_only, windows.start[:, None], epoch, WINDOW)
        return np.where(only_last, column == windows.length[:, None] - 1, masked)

    def _happens(self, probability: float, names: Int64, epoch: int, stream: tuple[int, ...]) -> Bool:
        bounds = np.full(names.shape, ONE, dtype=np.int64)
        return draw_below(bounds, names, seed=self.seed, epoch=epoch, stream=stream) < probability * ONE

    def _with_masks(self, windows: Windows, masks: Bool) -> dict[str, torch.Tensor]:
        """Returns the tensors of `batch`."""
        column = np.arange(windows.width(self.max_length))
        real, masks = column < windows.length[:, None], masks[:, : len(column)]
        items = self.items[np.where(real, windows.start[:, None] + column, 0)]
        return int64_tensors(
            inputs=np.where(masks, self.mask_token, np.where(real, items, 0)),
            lengths=windows.length,
            targets=np.where(masks, items, IGNORED),
            valid=np.flatnonzero(masks),
            tokens=np.flatnonzero(real),
            masked=masks.sum(axis=1),
        )
