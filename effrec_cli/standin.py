"""Data of a given shape and no content, to size a model on before the real data are there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences

USERS, LENGTH, CASES = 64, 1024, 4096
WORDS, TOKENS = 1000, 16
"""Words of the vocabulary, and of each item's text."""
SLATE = 8
SIDES = ("text", "answers", "impressions")


def stand_in(num_items: int, name: str, side: Collection[str] = SIDES, image_size: int = 16) -> RecData:
    """Returns data with `num_items` items, a few users whose histories fill any window, and many cases.

    Args:
        num_items: V, size of the catalogue.
        name: of the dataset stood in for.
        side: what it has beside interactions, of `text`, `images`, `answers` and `impressions`; other names
            are passed by.
        image_size: pixels of an image's side.
    """
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    items = np.random.default_rng(0).integers(0, num_items, USERS * LENGTH).astype(np.int32)
    users = np.arange(CASES, dtype=np.int64) % USERS
    end = offsets[1:][users]
    cases = EvalCases(users.astype(np.int32), offsets[users], end - 1, end - 1, end)
    return RecData(
        name=name,
        content_hash="",
        sequences=Sequences(offsets, items, np.tile(np.arange(LENGTH, dtype=np.int64), USERS)),
        train_end=offsets[1:].copy(),
        valid=cases,
        test=cases,
        users=Catalogue(np.arange(USERS)),
        items=Catalogue(np.arange(num_items), _titles(num_items) if "text" in side else None),
        side=_side(num_items, side, image_size),
    )


def _titles(num_items: int) -> NDArray[np.str_]:
    """Returns one text for all items, which takes no memory."""
    return np.broadcast_to(np.array(" ".join(f"word{number}" for number in range(TOKENS))), num_items)


def _side(num_items: int, names: Collection[str], image_size: int) -> dict[str, NDArray[Any]]:
    """Returns the side arrays of what is named (docs/simulator.md)."""
    draw, made = np.random.default_rng(1), dict[str, NDArray[Any]]()
    if "text" in names:
        made["item_tokens"] = draw.integers(0, WORDS, num_items * TOKENS).astype(np.int32)
        made["item_token_offsets"] = np.arange(num_items + 1, dtype=np.int64) * TOKENS
        made["item_vocabulary"] = np.array([f"word{number}" for number in range(WORDS)])
    if "images" in names:
        made["item_images"] = np.zeros((num_items, image_size, image_size, 3), dtype=np.uint8)
    if "answers" in names:
        made["answers_user"] = np.repeat(np.arange(USERS, dtype=np.int32), LENGTH)
        made["answers_item"] = draw.integers(0, num_items, USERS * LENGTH).astype(np.int32)
        made["answers_correct"] = draw.integers(0, 2, USERS * LENGTH).astype(np.uint8)
    if "impressions" in names:
        made["impressions_user"] = (np.arange(CASES) % USERS).astype(np.int32)
        made["impressions_time"] = np.arange(CASES, dtype=np.int64) * LENGTH // CASES
        made["impressions_candidates"] = draw.integers(0, num_items, (CASES, SLATE)).astype(np.int32)
        made["impressions_clicks"] = np.zeros((CASES, SLATE), dtype=np.uint8)
        made["impressions_clicks"][:, 0] = 1
    return made
