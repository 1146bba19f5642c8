"""Small data, factors and networks of task top_n."""

import numpy as np
import torch

from effrec_cli.data.attributes import attributes_of
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.methods.top_n.network import table_of
from effrec_cli.models.attributes import AttributeTable
from effrec_cli.models.dlrm import DLRM
from effrec_cli.models.id_embeddings import STRATEGIES, drawn
from effrec_cli.models.neumf import NeuMF
from effrec_cli.models.two_tower import TwoTower

MODELS = {
    "two_tower": (TwoTower, {"hidden": [12]}),
    "neumf": (NeuMF, {"hidden": [12, 6]}),
    "dlrm": (DLRM, {"bottom": [7], "top": [9]}),
}


def data_of(rows, *, num_items, side=None, held=0):
    """Returns data of lists of items, a user each, the last `held` of them no training rows."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    end = offsets[1:]
    none = np.zeros(0, np.int64)
    nobody = EvalCases(none.astype(np.int32), none, none, none, none)
    return RecData(
        name="toy",
        content_hash="toy",
        sequences=Sequences(offsets, items),
        train_end=end - held,
        valid=nobody,
        test=nobody,
        users=Catalogue(np.arange(len(rows))),
        items=Catalogue(np.arange(num_items)),
        side=side or {},
    )


def random_data(num_users=40, num_items=30, longest=20, seed=0, shortest=1, **others):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(shortest, longest, num_users)
    rows = [rng.choice(num_items, size, replace=False).tolist() for size in sizes]
    return data_of(rows, num_items=num_items, **others)


def side_of(num_users=40, num_items=30, seed=1):
    """Returns side arrays of every kind."""
    rng = np.random.default_rng(seed)
    return {
        "user_features": rng.normal(3, 5, (num_users, 4)).astype(np.float32),
        "user_age": np.where(np.arange(num_users) == 5, -1, rng.integers(9, 60, num_users)).astype(np.int16),
        "user_gender": rng.integers(-1, 2, num_users).astype(np.int8),
        "item_features": rng.normal(size=(num_items, 3)).astype(np.float32),
        "item_categories": rng.integers(0, 5, (num_items, 2)).astype(np.int32),
        "item_genres": rng.integers(0, 2, (num_items, 6)).astype(np.uint8),
        "item_tokens": rng.integers(0, 50, num_items * 5).astype(np.int32),
        "item_token_offsets": np.arange(num_items + 1, dtype=np.int64) * 5,
        "item_vocabulary": np.array([f"w{n}" for n in range(50)]),
    }


def factors_of(data, dim=8, seed=2):
    """Returns users' and items' vectors, some numbers."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(data.num_users, dim, generator=draw), 3 * torch.randn(
        data.num_items, dim, generator=draw
    )


def bare(rows):
    """Returns attributes of nothing."""
    empty = torch.zeros(rows, 0)
    none = torch.zeros(rows, 0, dtype=torch.int32)
    return AttributeTable(empty, none, torch.zeros(0, dtype=torch.int64), none.to(torch.uint8), empty.clone())


def network(kind, data, strategy="init_frz", *, attributes=False, seed=3, factors=None, **settings):
    """Returns a network over factors of the data."""
    torch.manual_seed(seed)
    made, defaults = MODELS[kind]
    pair = factors or factors_of(data)
    ids = [drawn(*each.shape) if strategy == "rand" else STRATEGIES[strategy](each, 5) for each in pair]
    tables = [bare(data.num_users), bare(data.num_items)]
    if attributes:
        tables = [table_of(each) for each in attributes_of(data, text_dim=4)]
    if strategy == "residual":
        settings["residual"] = True
    return made(*ids, *tables, **{**defaults, **settings})
