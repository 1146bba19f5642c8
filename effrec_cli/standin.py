"""Data of a given shape and no content, to size a model on before the real data are there."""

from __future__ import annotations

import numpy as np

from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences

USERS, LENGTH = 64, 1024


def stand_in(num_items: int, name: str) -> RecData:
    """Returns data with `num_items` items and a few users whose histories fill any window.

    Args:
        num_items: V, size of the catalogue.
        name: of the dataset stood in for.
    """
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    items = np.random.default_rng(0).integers(0, num_items, USERS * LENGTH).astype(np.int32)
    none = np.empty(0, dtype=np.int64)
    cases = EvalCases(none.astype(np.int32), none, none, none, none)
    return RecData(
        name=name,
        content_hash="",
        sequences=Sequences(offsets, items),
        train_end=offsets[1:].copy(),
        valid=cases,
        test=cases,
        users=Catalogue(np.arange(USERS)),
        items=Catalogue(np.arange(num_items)),
    )
