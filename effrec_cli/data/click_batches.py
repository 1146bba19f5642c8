"""Training task ctr: labelled rows, each once an epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.click_features import ClickFeatures
from effrec_cli.data.click_rows import Kept
from effrec_cli.data.pairs import batch_size_for
from effrec_cli.data.shuffle import shuffled
from effrec_cli.data.types import Int64
from effrec_cli.data.windows import part_of


class ClickBatches:
    """Batches of labelled rows, a pure function of (seed, epoch, position); implements `Batches`.

    Args:
        features: of the rows.
        kept: the rows to go over.
        batch_size: samples in a step, over all ranks and micro-batches; None is `batch_size_for`.
        seed: the run's seed.

    Attributes:
        batch_size: samples in a step at most.
        num_samples: samples in an epoch.
        steps_per_epoch: optimizer steps in an epoch.
    """

    def __init__(self, features: ClickFeatures, kept: Kept, batch_size: int | None, seed: int) -> None:
        self.features, self.kept, self.seed = features, kept, seed
        self.num_samples = len(kept.rows)
        self.batch_size = batch_size or batch_size_for(self.num_samples)
        self.steps_per_epoch = -(-self.num_samples // self.batch_size)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b samples of the share: those of `tensors_of`, `labels` float32 [b], and where
        rows have weights `weights` float32 [b].
        """
        low, high = (self.num_samples * at // self.steps_per_epoch for at in (position, position + 1))
        places = shuffled(np.arange(low, high), self.num_samples, seed=self.seed, epoch=epoch)
        first, last = part_of(len(places), share)
        mine = places[first:last]
        rows = self.kept.rows[mine]
        tensors = tensors_of(self.features, rows)
        tensors["labels"] = torch.from_numpy(self.features.clicks.labels[rows].astype(np.float32))
        if self.kept.weights is not None:
            tensors["weights"] = torch.from_numpy(self.kept.weights[mine])
        return Batch(tensors, len(mine), len(places), step, first_target=first)


def tensors_of(features: ClickFeatures, rows: Int64) -> dict[str, Tensor]:
    """Returns what a network reads of b rows.

    These are `ids` int64 [b, 2 or 0], -1 for who is not known, `dense` float32 [b, F] and `categories` int64
    [b, C].
    """
    read = {"ids": features.ids(rows), "dense": features.dense(rows), "categories": features.categories(rows)}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in read.items()}
