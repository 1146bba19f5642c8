"""Impressions made of Python lists, and a simulated world with its impressions."""

from dataclasses import replace
from functools import cache

import numpy as np
from synthetic_helpers import default_world

from effrec_cli.data.news import Impressions, impressions_of
from effrec_cli.data.source import TRAIN
from effrec_cli.data.synthetic.catalogue import Rows
from effrec_cli.data.synthetic.impressions import impressions
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.schema.dataset_base import PartsConfig

NOBODY = EvalCases(*(np.empty(0, np.int64),) * 5)


def log(histories, slates, *, parts=None, num_items=None):
    """Returns impressions of lists: histories of items, and slates of (item, click)."""
    flat = [pair for slate in slates for pair in slate]
    read = [item for history in histories for item in history]
    ends = np.cumsum([len(history) for history in histories])
    n = len(slates)
    return Impressions(
        users=np.arange(n, dtype=np.int32),
        times=np.arange(n, dtype=np.int64),
        part=np.array(parts or [TRAIN] * n, dtype=np.int8),
        offsets=np.concatenate([[0], np.cumsum([len(slate) for slate in slates])]).astype(np.int64),
        candidates=np.array([item for item, _ in flat], dtype=np.int32),
        clicks=np.array([click for _, click in flat], dtype=np.uint8),
        history_start=ends - [len(history) for history in histories],
        history_end=ends,
        history_items=np.array(read, dtype=np.int32),
        num_items=num_items or max(max(item for item, _ in flat), max(read, default=0)) + 1,
        protocol={},
        train_counts=np.zeros(0, dtype=np.int64),
    )


def ready_made(times, parts, slates, histories):
    """Returns data whose side arrays bring impressions in parts, of four items `N1` to `N4`."""
    made = log(histories, slates, parts=parts)
    texts = [text.encode() for text in ("one", "two", "drei", "fünf")]
    side = {
        "impressions_user": made.users,
        "impressions_time": np.array(times),
        "impressions_part": made.part,
        "impressions_offsets": made.offsets,
        "impressions_candidates": made.candidates,
        "impressions_clicks": made.clicks,
        "impressions_history": made.history_items,
        "impressions_history_start": made.history_start,
        "impressions_history_end": made.history_end,
        "impressions_item_ids": np.array(["N1", "N2", "N3", "N4"]),
        "impressions_item_text": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "impressions_item_text_offsets": np.cumsum([0, *map(len, texts)]),
    }
    return data_of([], side)


def data_of(rows, side, num_items=4):
    """Returns data of one list of (item, time) a user."""
    sizes = [len(user) for user in rows]
    flat = [pair for user in rows for pair in user]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return RecData(
        name="list",
        content_hash="0",
        sequences=Sequences(
            offsets,
            np.array([item for item, _ in flat], dtype=np.int32),
            np.array([time for _, time in flat], dtype=np.int64),
        ),
        train_end=offsets[1:],
        valid=NOBODY,
        test=NOBODY,
        users=Catalogue(np.arange(len(rows))),
        items=Catalogue(np.arange(num_items)),
        side=side,
    )


def simulated(parts=None):
    """Returns the default world's data with its slates, and the impressions made of them."""
    data = with_slates()
    return data, impressions_of(data, parts or PartsConfig())


@cache
def with_slates():
    """Returns the default world's data with its slates beside, made once."""
    source, data = default_world()
    return replace(data, side=impressions(source.world, Rows(source.world, data)))


def history_of(impressions, row):
    """Returns the items of one impression's whole history."""
    low, high = impressions.history_start[row], impressions.history_end[row]
    return impressions.history_items[low:high].tolist()


def slate_of(impressions, row):
    """Returns one impression's (item, click) pairs."""
    low, high = impressions.offsets[row], impressions.offsets[row + 1]
    return list(
        zip(impressions.candidates[low:high].tolist(), impressions.clicks[low:high].tolist(), strict=True)
    )
