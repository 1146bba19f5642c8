"""A simulated world made ready in memory, without the preparation that real runs use."""

from functools import cache
from pathlib import Path

import numpy as np

from effrec_cli.data.synthetic import SyntheticSource
from effrec_cli.data.synthetic.histories import blocks
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.schema.dataset_synthetic import SyntheticConfig


def source_of(**settings):
    return SyntheticSource(SyntheticConfig(**settings), Path())


@cache
def _default():
    source = source_of()
    return source, prepared(source)


def default_world():
    """Returns the source with default settings and its data, made once."""
    return _default()


def all_rows(source):
    """Returns users, items, times and ratings of all chunks."""
    chunks = list(source.chunks())
    names = ("users", "items", "times", "ratings")
    return tuple(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names)


def all_blocks(source):
    return list(blocks(source.world))


def prepared(source, *, keep_items=None):
    """Returns leave-one-out data; `keep_items` is a predicate of raw item ids."""
    users, items, times, ratings = all_rows(source)
    if keep_items is not None:
        kept = keep_items(items)
        users, items, times, ratings = users[kept], items[kept], times[kept], ratings[kept]
    user_ids, user_rows = np.unique(users, return_inverse=True)
    item_ids, item_rows = np.unique(items, return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user_rows))]).astype(np.int64)
    who = np.arange(len(user_ids), dtype=np.int32)
    end = offsets[1:]
    return RecData(
        name="synthetic",
        content_hash="0",
        sequences=Sequences(offsets, item_rows.astype(np.int32), times, ratings),
        train_end=end - 2,
        valid=EvalCases(who, offsets[:-1], end - 2, end - 2, end - 1),
        test=EvalCases(who, offsets[:-1], end - 1, end - 1, end),
        users=Catalogue(user_ids),
        items=Catalogue(item_ids),
    )


def targets(data):
    return data.sequences.items[data.test.target_start]


def ranks(data, score):
    """Returns each test case's rank of the target under `score(case) -> [V]`, seen items left out."""
    found = []
    for case, target in enumerate(targets(data)):
        scores = np.array(score(case), dtype=np.float64)
        first, stop = data.test.history_start[case], data.test.history_end[case]
        scores[data.sequences.items[first:stop]] = -np.inf
        found.append(np.count_nonzero(scores > scores[target]))
    return np.array(found)


def ndcg(found, k=10):
    return float(np.where(found < k, 1 / np.log2(found + 2.0), 0).mean())


def auc(labels, scores):
    order = np.argsort(scores, kind="stable")
    place = np.empty(len(scores))
    place[order] = np.arange(len(scores))
    ones = int(labels.sum())
    return (place[labels == 1].sum() - ones * (ones - 1) / 2) / (ones * (len(labels) - ones))


def nearest_centroid_accuracy(points, labels, seed=0):
    """Returns how often the nearest class mean of one half names the class of the other half."""
    train = np.random.default_rng(seed).random(len(points)) < 0.5
    centroids = np.stack([points[train & (labels == label)].mean(axis=0) for label in np.unique(labels)])
    distance = ((points[~train][:, None] - centroids[None]) ** 2).sum(axis=2)
    return float((np.unique(labels)[distance.argmin(axis=1)] == labels[~train]).mean())
