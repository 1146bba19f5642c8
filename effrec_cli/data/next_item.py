"""Training task next_item: windows over users' training items, in which every position foretells the next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.shuffle import draw_below, shuffled
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError

Int64 = NDArray[np.int64]

IGNORED = -100
"""Target where there is no loss."""

WIDTH_STEP = 16
"""Batches are as wide as their longest window, rounded up to a multiple of this: few shapes."""


@dataclass(frozen=True)
class Windows:
    """Which positions of `Sequences.items` some windows read; all arrays are int64 [n].

    Attributes:
        start: position of the first input; the targets are the positions one later.
        length: inputs, and so targets.
    """

    start: Int64
    length: Int64

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, some: slice) -> Windows:
        return Windows(self.start[some], self.length[some])


class NextItemBatches:
    """Batches of windows, a pure function of (seed, epoch, position); implements `Batches`.

    A user with n training items has n - 1 targets (the first item has nothing before it). `slide` cuts them
    into as few windows of L as hold them, so each is a target exactly once an epoch; the first and the last
    window may be shorter, and how much the first is, is drawn anew each epoch, so that a target sees another
    part of its past each time. `last` takes the last L targets alone. Nothing behind `train_end` is read.

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
        self.offsets = np.asarray(data.sequences.offsets[:-1])
        self.held = self._held(data)
        windows = _windows_of_users(self.held, max_length, window)
        self.first_window = np.concatenate([[0], np.cumsum(windows)])
        self.num_samples = int(self.first_window[-1])
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
        read = np.minimum(self.held, self.max_length) if self.window == "last" else self.held
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
        windows = self._windows(self._samples(epoch, position), epoch)
        low, high = part_of(len(windows), share)
        before, total = int(windows.length[:low].sum()), int(windows.length.sum())
        return Batch(self._tensors(windows[low:high]), high - low, total, step, first_target=before)

    def _held(self, data: RecData) -> Int64:
        """Returns how many items of each user windows are to hold, int64 [num_users]."""
        return _targets_of_users(data)

    def _samples(self, epoch: int, position: int) -> Int64:
        """Returns the windows' numbers of one step, int64."""
        low, high = (self.num_samples * at // self.steps_per_epoch for at in (position, position + 1))
        return shuffled(np.arange(low, high), self.num_samples, seed=self.seed, epoch=epoch)

    def _windows(self, samples: Int64, epoch: int) -> Windows:
        """Returns what the numbered windows read in this epoch."""
        users = np.searchsorted(self.first_window, samples, side="right") - 1
        first, after_last = self.first_window[users], self.first_window[users + 1]
        held = self.held[users]
        shorter = (after_last - first) * self.max_length - held
        if self.window == "slide":
            shorter = draw_below(shorter + 1, users, seed=self.seed, epoch=epoch)
        start = (samples - first) * self.max_length - shorter
        end = np.minimum(start + self.max_length, held)
        start = np.maximum(start, 0)
        return Windows(self.offsets[users] + start, end - start)

    def _tensors(self, windows: Windows) -> dict[str, torch.Tensor]:
        """Returns the tensors of `batch`."""
        column = np.arange(self._width(windows))
        real = column < windows.length[:, None]
        at = np.where(real, windows.start[:, None] + column, 0)
        return int64_tensors(
            inputs=np.where(real, self.items[at], 0),
            lengths=windows.length,
            targets=np.where(real, self.items[np.where(real, at + 1, 0)], IGNORED),
            valid=np.flatnonzero(real),
        )

    def _width(self, windows: Windows) -> int:
        longest = int(windows.length.max(initial=1))
        return min(self.max_length, -(-longest // WIDTH_STEP) * WIDTH_STEP)


def batch_size_for(data: RecData, max_length: int, window: str) -> int:
    """Returns a batch size for these data: about a hundred steps an epoch, a power of two from 16 to 256.

    Small data need small batches to be learnt in few passes, large data large ones to use the device.
    """
    windows = int(_windows_of_users(_targets_of_users(data), max_length, window).sum())
    return min(256, max(16, 2 ** round(math.log2(max(1, windows) / 100))))


def _targets_of_users(data: RecData) -> Int64:
    """Returns how many targets each user has, int64 [num_users]."""
    return np.maximum(np.asarray(data.train_end) - np.asarray(data.sequences.offsets[:-1]) - 1, 0)


def _windows_of_users(held: Int64, max_length: int, window: str) -> Int64:
    """Returns how many windows the items held of each user are cut into, int64 [num_users]."""
    windows = -(-held // max_length)
    return np.minimum(windows, 1) if window == "last" else windows


def int64_tensors(**arrays: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Returns the arrays as tensors, int64."""
    return {name: torch.from_numpy(np.asarray(array, dtype=np.int64)) for name, array in arrays.items()}


def part_of(count: int, share: Share) -> tuple[int, int]:
    """Returns the range of a step's samples that one share has; the shares' ranges partition them all."""
    parts = share.ranks * share.micros
    part = share.rank * share.micros + share.micro
    return count * part // parts, count * (part + 1) // parts
