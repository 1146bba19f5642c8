"""Training task knowledge_tracing: windows over users' answers, in which each is told from those before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effrec_cli.data.answers import HELD_OUT, Answers, Bool, UInt8
from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.types import Int32, Int64
from effrec_cli.data.windows import Cuts, Windows, int64_tensors, part_of, windows_in_a_step, windows_of_users


class TracingBatches:
    """Batches of windows over training answers, a pure function of (seed, epoch, position); a `Batches`.

    A user's training answers are cut into as few windows of L as hold them (see `Cuts`), so that each is a
    target exactly once an epoch, told from those before it in its window. Answers that are held out, or of
    items drawn as cold, are in no window.

    Args:
        answers: of the dataset.
        batch_size: windows in a step, over all ranks and micro-batches.
        max_length: L, answers in a window at most.
        seed: the run's seed.

    Attributes:
        num_samples: windows in an epoch.
        steps_per_epoch: optimizer steps in an epoch.
        targets_per_epoch: answers that an epoch trains on.
    """

    def __init__(self, answers: Answers, batch_size: int, max_length: int, seed: int) -> None:
        trained = answers.trained
        self.items, self.correct = answers.items[trained], answers.correct[trained]
        self.max_length = max_length
        held = trained_of_users(answers)
        self.cuts = Cuts(np.cumsum(held) - held, held, max_length, "slide", seed)
        self.num_samples = self.cuts.num_samples
        self.targets_per_epoch = len(self.items)
        self.steps_per_epoch = -(-self.num_samples // batch_size)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b windows of the share, W wide (the longest, rounded up to a multiple of 16):
        `items` int64 [b, W], padded on the right with -1; `correct` int64 [b, W], 0 at padding; `lengths`
        int64 [b]; `valid` int64 [m], the flat places of the m targets; `labels` float32 [m], 1 where these
        were answered right. Targets are numbered window by window through the whole step.
        """
        windows = self.cuts.step(epoch, position, self.steps_per_epoch)
        low, high = part_of(len(windows), share)
        before, total = int(windows.length[:low].sum()), int(windows.length.sum())
        tensors = self._tensors(windows[low:high])
        return Batch(tensors, high - low, total, step, first_target=before)

    def _tensors(self, windows: Windows) -> dict[str, Tensor]:
        items, correct, real = _rows(self.items, self.correct, windows, windows.width(self.max_length))
        valid = np.flatnonzero(real)
        labels = torch.from_numpy(correct.ravel()[valid].astype(np.float32))
        tensors = int64_tensors(items=items, correct=correct, lengths=windows.length, valid=valid)
        return {**tensors, "labels": labels}


def trained_of_users(answers: Answers) -> Int64:
    """Returns how many answers of each user training may see, int64 [U]."""
    seen = np.concatenate([[0], np.cumsum(answers.trained)])
    return np.diff(seen[answers.offsets])


def tracing_batch_size(answers: Answers, max_length: int) -> int:
    """Returns a batch size for these answers (see `windows_in_a_step`)."""
    return windows_in_a_step(int(windows_of_users(trained_of_users(answers), max_length, "slide").sum()))


@dataclass(frozen=True)
class Judged:
    """Some windows over users' whole pasts, of which the last answers are to be judged.

    Attributes:
        items: int64 [b, W] item rows, padded on the right with 0.
        correct: int64 [b, W], 0 at padding.
        lengths: int64 [b].
        places: int64 [m], flat places of the judged answers.
        answers: int64 [m], their positions in `Answers`.
    """

    items: Int64
    correct: Int64
    lengths: Int64
    places: Int64
    answers: Int64


class JudgedWindows:
    """Windows that judge each answer of a held-out part once, from the user's past up to L - 1 answers.

    A window ends with at most half of L judged answers, so that each has the user's last L / 2 answers before
    it, or all there are. The past is all that the user has answered before: training, validation, and items
    drawn as cold.

    Args:
        answers: of the dataset.
        part: `valid` or `test`.
        max_length: L.
    """

    def __init__(self, answers: Answers, part: str, max_length: int) -> None:
        self.all, self.max_length = answers, max_length
        starts, ends = _part_ranges(answers, HELD_OUT[part])
        stride = max(1, max_length // 2)
        windows = -(-(ends - starts) // stride)
        user = np.repeat(np.arange(len(starts)), windows)
        number = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
        self._judged = starts[user] + number * stride
        self._end = np.minimum(self._judged + stride, ends[user])
        self._start = np.maximum(answers.offsets[user], self._end - max_length)

    def __len__(self) -> int:
        return len(self._end)

    def blocks(self, rows: int, rank: int = 0, ranks: int = 1) -> Iterator[Judged]:
        """Yields a rank's blocks of at most `rows` windows; what is in a block depends on `rows` alone."""
        for number, low in enumerate(range(0, len(self), rows)):
            if number % ranks == rank:
                yield self._block(slice(low, low + rows))

    def _block(self, some: slice) -> Judged:
        windows = Windows(self._start[some], self._end[some] - self._start[some])
        width = windows.width(self.max_length)
        items, correct, real = _rows(self.all.items, self.all.correct, windows, width)
        at = windows.start[:, None] + np.arange(width)
        judged = real & (at >= self._judged[some, None])
        places = np.flatnonzero(judged)
        return Judged(np.where(real, items, 0), correct, windows.length, places, at.ravel()[places])


def _part_ranges(answers: Answers, part: int) -> tuple[Int64, Int64]:
    """Returns where each user's answers of a part start and end, int64 [U] each."""
    upto = np.concatenate([[0], np.cumsum(answers.part < part)])
    within = np.concatenate([[0], np.cumsum(answers.part == part)])
    starts = answers.offsets[:-1] + np.diff(upto[answers.offsets])
    return starts, starts + np.diff(within[answers.offsets])


def _rows(items: Int32, correct: UInt8, windows: Windows, width: int) -> tuple[Int64, Int64, Bool]:
    """Returns the items (-1 at padding), answers (0 there) and what is real of some windows, [n, width]."""
    column = np.arange(width)
    real = column < windows.length[:, None]
    at = np.where(real, windows.start[:, None] + column, 0)
    items, correct = np.where(real, items[at], PAD_ITEM), np.where(real, correct[at], 0)
    return items.astype(np.int64), correct.astype(np.int64), real
