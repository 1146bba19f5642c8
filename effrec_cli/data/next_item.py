"""Training task next_item: windows over users' training items, in which every position foretells the next."""

from __future__ import annotations

import numpy as np
import torch

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.types import Int64, RecData
from effrec_cli.data.windows import Cuts, Windows, int64_tensors, part_of, windows_in_a_step, windows_of_users
from effrec_cli.errors import DataError

IGNORED = -100
"""Target where there is no loss."""


class NextItemBatches:
    """Batches of windows, a pure function of (seed, epoch, position); implements `Batches`.

    A user with n training items has n - 1 targets (the first item has nothing before it). `slide` cuts them
    into as few windows of L as hold them, so each is a target exactly once an epoch; the first and the last
    window may be shorter, and how much the first is, is drawn anew each epoch, so that a target sees another
    part of its past each time. `last` takes the last L targets alone. Nothing before `train_start` or
    behind `train_end` is read.

    A step has at most `batch_size` windows: an epoch's windows are dealt evenly over its steps, so that no
    small step is left over at the end.

    Args:
        data: the prepared dataset.
        batch_size: windows in a step, over all ranks and micro-batches.
        max_length: L, inputs in a window at most.
        window: `slide` or `last`.
        seed: the run's seed.

    Attributes:
        num_samples: windows in an epoch.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        DataError: no user has two training items.
    """

    def __init__(self, data: RecData, batch_size: int, max_length: int, window: str, seed: int) -> None:
        self.items = data.sequences.items
        self.max_length = max_length
        self.window = window
        self.seed = seed
        first = np.asarray(data.train_start)
        self.cuts = Cuts(first, self._held(data), max_length, window, seed)
        self.num_samples = self.cuts.num_samples
        if not self.num_samples:
            raise DataError(
                "No user has two training items, so there is no next item to learn.",
                where=f"dataset {data.name}",
                fix="loosen dataset.filter, or name more interactions",
            )
        self.steps_per_epoch = -(-self.num_samples // batch_size)

    @property
    def items_per_epoch(self) -> int:
        """Items that an epoch's windows read."""
        held = self.cuts.held
        read = np.minimum(held, self.max_length) if self.window == "last" else held
        return int(read.sum())

    @property
    def targets_per_epoch(self) -> float:
        """Rows with a loss in an epoch: each item that is read foretells one."""
        return self.items_per_epoch

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b windows of the share, W wide (the longest, rounded up to a multiple of 16):
        `inputs` int64 [b, W], padded on the right with 0; `lengths` int64 [b]; `targets` int64 [b, W], -100
        where there is none; `valid` int64 [m], the flat places of the m targets, known here so that a device
        need not be asked. Targets are numbered window by window through the whole step, so that no split into
        ranks or micro-batches changes a number.
        """
        return self._part(self.cuts.step(epoch, position, self.steps_per_epoch), share, step)

    def _part(self, windows: Windows, share: Share, step: int) -> Batch:
        """Returns the `share` of a step's windows as `batch` does."""
        low, high = part_of(len(windows), share)
        before, total = int(windows.length[:low].sum()), int(windows.length.sum())
        return Batch(self._tensors(windows[low:high]), high - low, total, step, first_target=before)

    def _held(self, data: RecData) -> Int64:
        """Returns how many items of each user windows are to hold, int64 [num_users]."""
        return _targets_of_users(data)

    def _tensors(self, windows: Windows) -> dict[str, torch.Tensor]:
        """Returns the tensors of `batch`."""
        column = np.arange(windows.width(self.max_length))
        real = column < windows.length[:, None]
        at = np.where(real, windows.start[:, None] + column, 0)
        return int64_tensors(
            inputs=np.where(real, self.items[at], 0),
            lengths=windows.length,
            targets=np.where(real, self.items[np.where(real, at + 1, 0)], IGNORED),
            valid=np.flatnonzero(real),
        )


def batch_size_for(data: RecData, max_length: int, window: str) -> int:
    """Returns a batch size for these data (see `windows_in_a_step`)."""
    return windows_in_a_step(int(windows_of_users(_targets_of_users(data), max_length, window).sum()))


def _targets_of_users(data: RecData) -> Int64:
    """Returns how many targets each user has, int64 [num_users]."""
    return np.maximum(np.asarray(data.train_end) - np.asarray(data.train_start) - 1, 0)
