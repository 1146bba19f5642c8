"""The training rows of a dataset as a sparse matrix."""

from __future__ import annotations

import numpy as np
import torch

from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.evaluation.blocks import flat_ranges
from effrec_cli.models.factors.matrix import Interactions

BYTES_A_ROW = 40
"""About what making the matrix holds at its peak for each training row, on the host."""


def training_cells(data: RecData, device: torch.device, *, ratings: bool) -> Interactions:
    """Returns who met what in training on `device`; a pair that was met several times counts once.

    Args:
        data: the dataset; nothing but its training rows is read.
        device: where to.
        ratings: with ratings as values, the last of a pair counting.

    Raises:
        DataError: there is no training row, or ratings are asked for and there are none.
    """
    if ratings and data.sequences.ratings is None:
        what = "This factorisation is one of ratings, and the dataset has none."
        fix = "method=ials, or name the column with ratings (dataset.rating)"
        raise DataError(what, where=f"dataset {data.name}", fix=fix)
    if not data.num_train:
        raise DataError("There is nothing to train on.", fix="loosen dataset.filter, or use more data")
    positions, _ = flat_ranges(data.train_start, data.train_end)
    items = torch.from_numpy(np.ascontiguousarray(data.sequences.items[positions]))
    told = None
    if ratings:
        assert data.sequences.ratings is not None
        told = torch.from_numpy(np.ascontiguousarray(data.sequences.ratings[positions])).to(device)
    del positions
    ends = np.cumsum(data.train_end - data.train_start)
    offsets = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int64))
    return Interactions.distinct(offsets.to(device), items.to(device), data.num_items, told)
