"""Users' rows cut into windows of bounded length, and which windows a step has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data.batches import Share
from effrec_cli.data.shuffle import draw_below, shuffled
from effrec_cli.data.types import Int64

WIDTH_STEP = 16
"""Batches are as wide as their longest window, rounded up to a multiple of this: few shapes."""


@dataclass(frozen=True)
class Windows:
    """Which positions of an array of rows some windows read; all arrays are int64 [n].

    Attributes:
        start: position of the first.
        length: how many.
    """

    start: Int64
    length: Int64

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, some: slice) -> Windows:
        return Windows(self.start[some], self.length[some])

    def width(self, max_length: int) -> int:
        """Returns how wide a batch of these windows is, at most `max_length`."""
        longest = int(self.length.max(initial=1))
        return min(max_length, -(-longest // WIDTH_STEP) * WIDTH_STEP)


class Cuts:
    """An epoch's windows over users' rows, numbered user after user.

    `slide` cuts the rows of a user into as few windows of L as hold them, so each is in one window an epoch;
    the first and the last window may be shorter, and how much the first is, is drawn anew each epoch. `last`
    takes the last L rows alone.

    Args:
        first: int64 [num_users], position of each user's first row.
        held: int64 [num_users], how many rows of each user windows are to hold.
        max_length: L.
        window: `slide` or `last`.
        seed: the run's seed.

    Attributes:
        held: as given.
        num_samples: windows in an epoch.
    """

    def __init__(self, first: Int64, held: Int64, max_length: int, window: str, seed: int) -> None:
        self.first, self.held = first, held
        self.max_length = max_length
        self.window = window
        self.seed = seed
        self._first_window = np.concatenate([[0], np.cumsum(windows_of_users(held, max_length, window))])
        self.num_samples = int(self._first_window[-1])

    def step(self, epoch: int, position: int, steps: int) -> Windows:
        """Returns the windows of the step at `position` of `epoch`: all are dealt evenly over its `steps`."""
        low, high = (self.num_samples * at // steps for at in (position, position + 1))
        samples = shuffled(np.arange(low, high), self.num_samples, seed=self.seed, epoch=epoch)
        return self.windows(samples, epoch)

    def windows(self, samples: Int64, epoch: int) -> Windows:
        """Returns what the numbered windows read in this epoch."""
        users = np.searchsorted(self._first_window, samples, side="right") - 1
        first, after_last = self._first_window[users], self._first_window[users + 1]
        held = self.held[users]
        shorter = (after_last - first) * self.max_length - held
        if self.window == "slide":
            shorter = draw_below(shorter + 1, users, seed=self.seed, epoch=epoch)
        start = (samples - first) * self.max_length - shorter
        end = np.minimum(start + self.max_length, held)
        start = np.maximum(start, 0)
        return Windows(self.first[users] + start, end - start)


def windows_of_users(held: Int64, max_length: int, window: str) -> Int64:
    """Returns how many windows the rows held of each user are cut into, int64 [num_users]."""
    windows = -(-held // max_length)
    return np.minimum(windows, 1) if window == "last" else windows


def windows_in_a_step(windows: int) -> int:
    """Returns a batch size: about a hundred steps an epoch, a power of two from 16 to 256.

    Small data need small batches to be learnt in few passes, large data large ones to use the device.
    """
    return min(256, max(16, 2 ** round(math.log2(max(1, windows) / 100))))


def int64_tensors(**arrays: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Returns the arrays as tensors, int64."""
    return {name: torch.from_numpy(np.asarray(array, dtype=np.int64)) for name, array in arrays.items()}


def part_of(count: int, share: Share) -> tuple[int, int]:
    """Returns the range of a step's samples that one share has; the shares' ranges partition them all."""
    parts = share.ranks * share.micros
    part = share.rank * share.micros + share.micro
    return count * part // parts, count * (part + 1) // parts
