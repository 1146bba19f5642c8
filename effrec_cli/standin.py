"""Data of a given shape and no content, to size a model on before the real data are there."""

from __future__ import annotations

import numpy as np

from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences

USERS, LENGTH, CASES = 64, 1024, 4096


def stand_in(num_items: int, name: str) -> RecData:
    """Returns data with `num_items` items, a few users whose histories fill any window, and many cases.

    Args:
        num_items: V, size of the catalogue.
        name: of the dataset stood in for.
    """
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    items = np.random.default_rng(0).integers(0, num_items, USERS * LENGTH).astype(np.int32)
    users = np.arange(CASES, dtype=np.int64) % USERS
    end = offsets[1:][users]
    cases = EvalCases(users.astype(np.int32), offsets[users], end - 1, end - 1, end)
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
