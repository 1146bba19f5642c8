"""Data with answers, made by hand or by the simulator, and settings to trace them by."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
from synthetic_helpers import prepared, source_of

from effrec_cli.data.batches import Share
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.schema.dataset_base import PartsConfig
from effrec_cli.schema.model_dkt import DKTConfig

SIZES = [9, 1, 0, 33, 14, 2, 27, 5, 40, 11]


def make_data(sizes=SIZES, num_items=12, seed=0, **changes):
    """Answers of users with so many each, shuffled; `changes` replace or (None) leave out side arrays."""
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    side = {
        "answers_user": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        "answers_item": rng.integers(0, num_items, total).astype(np.int32),
        "answers_correct": rng.integers(0, 2, total).astype(np.uint8),
        "answers_time": rng.permutation(total).astype(np.int64),
    }
    side = {name: array for name, array in {**side, **changes}.items() if array is not None}
    none = np.zeros(0, dtype=np.int64)
    cases = EvalCases(none.astype(np.int32), none, none, none, none)
    titles = np.array([f"question {item}" for item in range(num_items)])
    return RecData(
        "tiny",
        "0" * 12,
        Sequences(np.zeros(len(sizes) + 1, dtype=np.int64), none.astype(np.int32)),
        np.zeros(len(sizes), dtype=np.int64),
        cases,
        cases,
        Catalogue(np.arange(len(sizes))),
        Catalogue(np.arange(num_items), titles),
        side=side,
    )


def parts(**changes):
    """Shares large enough for the few answers of `make_data`."""
    return PartsConfig(**{"test_share": 0.2, "valid_share": 0.2, "cold_item_share": 0.2, **changes})


def settings(model=None, *, batch_size=4, seed=1, **shares):
    """What the task reads of a run's settings."""
    return SimpleNamespace(
        seed=seed,
        model=model or DKTConfig(max_length=8, dropout=0.0),
        method=SimpleNamespace(batch_size=batch_size),
        dataset=SimpleNamespace(parts=parts(**shares)),
    )


@cache
def simulated():
    """A small simulated world with answers."""
    source = source_of(num_users=150, num_items=60, interactions_per_user=30.0, side=["text", "answers"])
    data = prepared(source)
    titles = Catalogue(data.items.ids, source.titles(data.items.ids))
    return replace(data, items=titles, side=source.side(data))


def epoch_of(batches, epoch=0, ranks=1, micros=1):
    """Returns every micro-batch of an epoch."""
    return [
        batches.batch(epoch, position, Share(rank, ranks, micro, micros), step=position)
        for position in range(batches.steps_per_epoch)
        for rank in range(ranks)
        for micro in range(micros)
    ]
