"""Which evaluation cases are about items that training has never met."""

from __future__ import annotations

import numpy as np

from effrec_cli.data.types import EvalCases, Int64, RecData
from effrec_cli.evaluation.blocks import flat_ranges


def cold_cases(data: RecData, cases: EvalCases, train_counts: Int64) -> EvalCases:
    """Returns the cases all of whose targets are cold.

    Args:
        data: whose cases they are.
        cases: of a part.
        train_counts: int64 [V], how often training meets each item.
    """
    positions, owner = flat_ranges(cases.target_start, cases.target_end)
    warm = np.zeros(len(cases), dtype=bool)
    warm[owner[train_counts[data.sequences.items[positions]] > 0]] = True
    return cases[~warm & (cases.target_end > cases.target_start)]
