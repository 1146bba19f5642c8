"""Training task next_item, told from candidates that a whole step shares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.shuffle import shuffled
from effrec_cli.data.types import Int64, RecData
from effrec_cli.data.windows import Windows, int64_tensors

STREAM = (4,)
"""Tells the draws of candidates from the order of the windows."""


class CandidateBatches(NextItemBatches):
    """Windows of the next item and what their targets are told from; implements `Batches`.

    The candidates of a step are its different targets and rows drawn from the catalogue: the same for all
    windows, ranks and micro-batches of the step. A drawn row that is a target is there once, as a target.
    Drawn rows are a pure function of (seed, step), without repetition, and k of them are no targets. Given
    the targets T, all of which are there, each of the other V - |T| rows is one of these k with probability
    k / (V - |T|): what a drawn row has to be divided by to stand for those that were not drawn.

    Args:
        data: the prepared dataset.
        batch_size: windows in a step, over all ranks and micro-batches.
        max_length: L, inputs in a window at most.
        window: `slide` or `last`.
        seed: the run's seed.
        whole: all rows of the catalogue are candidates.
        num_negatives: rows drawn for a step; None is as many as it has different targets.

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
        whole: bool = False,
        num_negatives: int | None = None,
    ) -> None:
        super().__init__(data, batch_size, max_length, window, seed)
        self.num_items, self.whole, self.num_negatives = data.num_items, whole, num_negatives

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b windows of the share, W wide, and their m targets: `inputs` int64 [b, W] item
        rows, padded on the right with -1; `lengths` int64 [b]; `valid` int64 [m], the flat places of items
        with a target; `candidates` int64 [C] item rows, the step's targets first and ascending; `labels`
        int64 [m], which of them the targets are; `log_q` float32 [C], how likely each was to be there.
        Targets are numbered window by window through the whole step.
        """
        windows = self.cuts.step(epoch, position, self.steps_per_epoch)
        own = self._part(windows, share, step)
        inputs, lengths, targets, valid = (
            own.tensors[name].numpy() for name in ("inputs", "lengths", "targets", "valid")
        )
        known = np.arange(self.num_items) if self.whole else self._targets(windows)
        drawn = known[:0] if self.whole else self._drawn(known, step)
        tensors = int64_tensors(
            inputs=np.where(targets >= 0, inputs, PAD_ITEM),
            lengths=lengths,
            valid=valid,
            candidates=np.concatenate([known, drawn]),
            labels=np.searchsorted(known, targets.ravel()[valid]),
        )
        log_q = torch.from_numpy(self._log_q(len(known), len(drawn)))
        return replace(own, tensors={**tensors, "log_q": log_q})

    def _targets(self, windows: Windows) -> Int64:
        """Returns the different targets of some windows, ascending."""
        column = np.arange(windows.length.max(initial=0))
        at = (windows.start[:, None] + 1 + column)[column < windows.length[:, None]]
        return np.unique(self.items[at]).astype(np.int64)

    def _drawn(self, targets: Int64, step: int) -> Int64:
        """Returns the rows drawn for a step that are none of its targets."""
        wanted = len(targets) if self.num_negatives is None else self.num_negatives
        first = np.arange(min(wanted, self.num_items))
        rows = shuffled(first, self.num_items, seed=self.seed, epoch=step, stream=STREAM)
        return rows[~np.isin(rows, targets)]

    def _log_q(self, targets: int, drawn: int) -> NDArray[np.float32]:
        """Returns log probabilities of candidates to be there, float32 [C]; 0 for those that surely are."""
        log_q = np.zeros(targets + drawn, dtype=np.float32)
        log_q[targets:] = math.log(drawn / (self.num_items - targets)) if drawn else 0.0
        return log_q
