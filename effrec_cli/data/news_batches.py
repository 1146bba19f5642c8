"""Training task news: each click against some of what was shown beside it and not clicked."""

from __future__ import annotations

import numpy as np

from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.news import Impressions
from effrec_cli.data.shuffle import draw_below, shuffled
from effrec_cli.data.source import TRAIN
from effrec_cli.data.types import Int64
from effrec_cli.data.windows import Windows, int64_tensors, part_of, windows_in_a_step
from effrec_cli.errors import DataError

_NEGATIVES = 5
"""Tells the draws of negatives from draws for other purposes."""


class NewsBatches:
    """Batches of clicks, a pure function of (seed, epoch, position); implements `Batches`.

    A sample is a clicked candidate of a training impression. Its K negatives are candidates of the same
    impression that were not clicked, drawn anew each epoch by (seed, epoch, sample): all different, unless
    there are fewer than K; then some come more than once. Impressions without a non-click have no samples.

    Args:
        impressions: of all parts; only the training part is read.
        batch_size: samples in a step, over all ranks and micro-batches; None chooses a power of two from 16
            to 256 that makes about a hundred steps an epoch.
        num_negatives: K.
        max_length: most recent items of a history that are read.
        seed: the run's seed.

    Attributes:
        batch_size: samples in a step at most.
        num_samples: clicks in an epoch.
        steps_per_epoch: optimizer steps in an epoch.
        left_out: training impressions that have only clicks.

    Raises:
        DataError: no training impression has a click beside a non-click.
    """

    def __init__(
        self, impressions: Impressions, batch_size: int | None, num_negatives: int, max_length: int, seed: int
    ) -> None:
        self.impressions = impressions
        self.num_negatives, self.max_length, self.seed = num_negatives, max_length, seed
        self.clicked, self.left_out = _training_clicks(impressions)
        self.num_samples = len(self.clicked)
        if not self.num_samples:
            raise DataError(
                "No training impression has a click beside something that was not clicked.",
                where=f"{len(impressions):,} impressions, {self.left_out:,} of training with clicks alone",
                fix="take data with candidates that were shown and not clicked",
            )
        self.batch_size = batch_size or windows_in_a_step(self.num_samples)
        self.steps_per_epoch = -(-self.num_samples // self.batch_size)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b samples of the share: `history` int64 [b, H], the most recent `max_length`
        items, oldest first, padded on the right with `PAD_ITEM`, H the longest rounded up to a multiple of
        16; `lengths` int64 [b], 0 for an empty history; `candidates` int64 [b, 1 + K], the clicked item
        first.
        """
        samples = self._samples(epoch, position)
        low, high = part_of(len(samples), share)
        tensors = self._arrays(samples[low:high], epoch)
        return Batch(int64_tensors(**tensors), high - low, len(samples), step, first_target=low)

    def _samples(self, epoch: int, position: int) -> Int64:
        """Returns the numbers of the samples of one step, int64."""
        low, high = (self.num_samples * at // self.steps_per_epoch for at in (position, position + 1))
        return shuffled(np.arange(low, high), self.num_samples, seed=self.seed, epoch=epoch)

    def _arrays(self, samples: Int64, epoch: int) -> dict[str, Int64]:
        """Returns the tensors of `batch` as arrays."""
        shown, clicked = self.impressions, self.clicked[samples]
        owners = np.searchsorted(shown.offsets, clicked, side="right") - 1
        cells = np.column_stack([clicked, self._negatives(samples, owners, epoch)])
        history, lengths = histories(shown, owners, self.max_length)
        candidates = shown.candidates[cells].astype(np.int64)
        return {"history": history, "lengths": lengths, "candidates": candidates}

    def _negatives(self, samples: Int64, owners: Int64, epoch: int) -> Int64:
        """Returns the positions of each sample's negatives, int64 [b, K]."""
        cells, sizes = self.impressions.cells(owners)
        free = self.impressions.clicks[cells] == 0
        many = np.bincount(np.repeat(np.arange(len(owners)), sizes)[free], minlength=len(owners))
        picks = draw_different(many, samples, self.num_negatives, seed=self.seed, epoch=epoch)
        return cells[free][(np.cumsum(many) - many)[:, None] + picks]


def histories(impressions: Impressions, rows: Int64, max_length: int) -> tuple[Int64, Int64]:
    """Returns the most recent items of some impressions' histories.

    Returns:
        int64 [b, H], oldest first, padded on the right with `PAD_ITEM`, H a multiple of 16 unless that is
        more than `max_length`; and their lengths, int64 [b].
    """
    end = impressions.history_end[rows]
    start = np.maximum(impressions.history_start[rows], end - max_length)
    lengths = end - start
    column = np.arange(Windows(start, lengths).width(max_length))
    real = column < lengths[:, None]
    items = np.full(real.shape, PAD_ITEM, dtype=np.int64)
    items[real] = impressions.history_items[(start[:, None] + column)[real]]
    return items, lengths


def draw_different(bounds: Int64, names: Int64, count: int, *, seed: int, epoch: int) -> Int64:
    """Returns `count` numbers below each bound, int64 [n, count], all different where the bound allows it.

    Each row's numbers are a uniform draw without replacement, in a random order; where the bound is below
    `count` they are independent draws. The same name, seed and epoch give the same numbers.
    """
    picks = np.empty((len(bounds), count), dtype=np.int64)
    enough = bounds >= count
    for at in range(count):
        stream = (_NEGATIVES, at)
        left = np.where(enough, bounds - at, bounds)
        pick = draw_below(left, names, seed=seed, epoch=epoch, stream=stream)
        for taken in np.sort(picks[:, :at], axis=1).T:
            pick += enough & (pick >= taken)  # the pick-th of those that are left
        picks[:, at] = pick
    return picks


def _training_clicks(impressions: Impressions) -> tuple[Int64, int]:
    """Returns the positions of training clicks beside a non-click, and how many impressions have none."""
    train = impressions.part == TRAIN
    clicked = impressions.clicked()
    only_clicks = train & (clicked > 0) & (clicked == np.diff(impressions.offsets))
    positions = np.flatnonzero(impressions.clicks)
    owners = np.searchsorted(impressions.offsets, positions, side="right") - 1
    return positions[(train & ~only_clicks)[owners]], int(np.count_nonzero(only_clicks))
