"""Small worlds with given scores, and oracles that share no code with what they check."""

import numpy as np
import torch

from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.schema import EvaluationConfig

ALL_METRICS = ["ndcg", "hr", "recall", "mrr", "map", "precision", "coverage", "surprisal"]
NO_SPLIT = {"kind": "made up"}


class TableScorer:
    """Scores every user by a row of a given matrix."""

    def __init__(self, table):
        self.table = torch.as_tensor(table)
        self.num_items = self.table.shape[1]
        self.device = torch.device("cpu")
        self.calls = []

    def score(self, users, histories):
        self.calls.append(len(users))
        return self.table[users].clone()


def make_data(histories, targets, num_items):
    """Returns data whose case u has `histories[u]` and `targets[u]`; users train on their histories."""
    parts = [np.array([*h, *t], dtype=np.int32) for h, t in zip(histories, targets, strict=True)]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    split = offsets[:-1] + np.array([len(h) for h in histories], dtype=np.int64)
    users = np.arange(len(parts), dtype=np.int32)
    cases = EvalCases(users, offsets[:-1], split, split, offsets[1:])
    return RecData(
        name="made-up",
        content_hash="0" * 64,
        sequences=Sequences(offsets, np.concatenate(parts) if parts else np.empty(0, np.int32)),
        train_end=split,
        valid=cases,
        test=cases,
        users=Catalogue(np.arange(len(parts)) + 100),
        items=Catalogue(np.array([f"i{item}" for item in range(num_items)])),
        protocol=NO_SPLIT,
    )


def settings(ks=(1, 3, 10), metrics=ALL_METRICS, **more):
    return EvaluationConfig(ks=list(ks), metrics=list(metrics), **more)


def mix(item):
    """Returns MurmurHash3's 32-bit finalizer of one number, in Python's own integers."""
    word = item & 0xFFFFFFFF
    word = ((word ^ word >> 16) * 0x85EBCA6B) % 2**32
    word = ((word ^ word >> 13) * 0xC2B2AE35) % 2**32
    return word ^ word >> 16


def full_order(scores):
    """Returns all items with a score above -inf, best first."""
    alive = [item for item, score in enumerate(scores) if score > -np.inf]
    return sorted(alive, key=lambda item: (-scores[item], mix(item)))
