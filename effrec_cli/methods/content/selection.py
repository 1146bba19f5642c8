"""Which items an update of the encoder takes in, where it may not take all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.methods.content.cycle import Cycle

Int64 = NDArray[np.int64]


def chosen(cycle: Cycle, train_counts: Int64, settings: Any) -> Int64:
    """Returns the rows, int64 ascending, whose gradients the coming update uses; the others' wait.

    Args:
        cycle: whose `owed` items are chosen from.
        train_counts: int64 [V], how often each occurs in training.
        settings: `update_share` of the owed items at most, those with the largest gradient norm, the most
            popular ones, or those that have waited longest, by `update_by`; among equals the larger
            gradient goes first.
    """
    owed = np.flatnonzero(cycle.owed)
    count = math.ceil(settings.update_share * len(owed))
    if count == len(owed):
        return owed
    norms = cycle.gradients.norm(dim=1).cpu().numpy()[owed]
    keys = {"gradient": norms, "popularity": train_counts[owed], "age": cycle.waiting[owed]}
    order = np.lexsort((-norms, -keys[settings.update_by].astype(np.float64)))
    return np.sort(owed[order[:count]])
