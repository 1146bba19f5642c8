"""Answers and impressions of an exact shape, drawn with numpy alone; for the suite `gram`.

Items are as unevenly popular as the simulator's, by Zipf's law with exponent 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.bench.drawn import Arrays, nobody, popular
from effrec_cli.bench.drawn import texts as drawn_texts
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import Catalogue, RecData, Sequences
from effrec_cli.errors import ConfigError

TEXTS = "EFFREC_TEXTS"
"""Environment variable: a file with a text a line, for an encoder that the user names."""
CLICKS_A_USER = 5
"""Training clicks that share one history, about as many as in MIND."""


def answers_data(
    *, steps: int, windows: int, answers: int, items: int, tokens: int, texts: Path | None = None
) -> RecData:
    """Returns users who have each answered as often as a window is long: `windows` of them a step.

    Args:
        steps: of an epoch.
        windows: of a step.
        answers: of a window.
        items: in the catalogue.
        tokens: of an item in the mean, from half to one and a half times as many.
        texts: a file with a text a line, of which some become the titles.

    Raises:
        ConfigError: there is no such file, or it has too few different texts.
    """
    rng, users = np.random.default_rng(0), steps * windows
    drawn = popular(rng, items, users * answers)
    # The last user's further answers: a wrong and a right one for each part that is judged.
    side: Arrays = {
        "answers_user": np.append(np.repeat(np.arange(users), answers), [users - 1] * 4),
        "answers_item": np.append(drawn, drawn[:4]),
        "answers_correct": np.append(rng.integers(0, 2, len(drawn)), [0, 1, 0, 1]),
        "answers_part": np.append(np.full(len(drawn), TRAIN), [VALID, VALID, TEST, TEST]),
    }
    return _data(rng, users, items, tokens, texts, side)


def clicks_data(
    *,
    steps: int,
    clicks: int,
    history: int,
    candidates: int,
    items: int,
    tokens: int,
    texts: Path | None = None,
) -> RecData:
    """Returns impressions with one click, `clicks` of them a step, after `history` clicks each.

    Args:
        steps: of an epoch.
        clicks: of a step.
        history: clicks before, of everyone.
        candidates: of an impression, the clicked one among them.
        items: in the catalogue.
        tokens: as of `answers_data`.
        texts: likewise.

    Raises:
        ConfigError: likewise.
    """
    rng, train = np.random.default_rng(0), steps * clicks
    shown = train + 2  # one more for each part that is judged
    users = np.arange(shown) // CLICKS_A_USER
    side: Arrays = {
        "impressions_user": users.astype(np.int32),
        "impressions_time": np.arange(shown, dtype=np.int64),
        "impressions_part": np.append(np.full(train, TRAIN), [VALID, TEST]).astype(np.int8),
        "impressions_offsets": candidates * np.arange(shown + 1, dtype=np.int64),
        "impressions_candidates": popular(rng, items, shown * candidates),
        "impressions_clicks": np.tile(np.arange(candidates) == 0, shown).astype(np.uint8),
        "impressions_history": popular(rng, items, (users[-1] + 1) * history),
        "impressions_history_start": users * history,
        "impressions_history_end": users * history + history,
        "impressions_item_ids": np.arange(items),
    }
    return _data(rng, int(users[-1]) + 1, items, tokens, texts, side)


def _data(
    rng: np.random.Generator, users: int, items: int, tokens: int, texts: Path | None, side: Arrays
) -> RecData:
    """Returns data without interactions of their own, whose items say something."""
    none = np.zeros(0, dtype=np.int64)
    said, titles = drawn_texts(rng, items, tokens) if texts is None else ({}, _read(rng, items, texts))
    return RecData(
        "drawn",
        "0" * 12,
        Sequences(np.zeros(users + 1, dtype=np.int64), none.astype(np.int32)),
        np.zeros(users, dtype=np.int64),
        nobody(),
        nobody(),
        Catalogue(np.arange(users)),
        Catalogue(np.arange(items), titles),
        side=side | said,
    )


def _read(rng: np.random.Generator, items: int, texts: Path) -> NDArray[Any]:
    """Returns different texts of a file, drawn at random."""
    lines = lines_of(texts)
    if len(lines) < items:
        raise ConfigError(
            f"The catalogue has {items:,} items, and {len(lines):,} different texts were found for them.",
            where=f"{TEXTS}={texts}",
            fix=f"a file with {items:,} or more lines that differ",
        )
    return rng.choice(np.array(lines), items, replace=False)


def lines_of(texts: Path) -> list[str]:
    """Returns the different lines of a file that say something, sorted.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return sorted({line.strip() for line in texts.read_text(encoding="utf-8").splitlines()} - {""})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "The texts of the items cannot be read.",
            where=f"{TEXTS}={texts}: {error}",
            fix=f"{TEXTS}=FILE in UTF-8, with a text a line",
        ) from error
