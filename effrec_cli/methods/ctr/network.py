"""The network of a run of task ctr, and the matrix whose factors it starts from."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np
from torch import Tensor

from effrec_cli.backbone import model_for
from effrec_cli.data.click_features import ClickFeatures
from effrec_cli.data.clicks import Clicks
from effrec_cli.data.types import Catalogue, EvalCases, Int64, RecData, Sequences
from effrec_cli.errors import ConfigError
from effrec_cli.methods.top_n.network import embedding_of
from effrec_cli.models.clicks import ClickModel, RowDLRM, RowNeuMF
from effrec_cli.schema import Config

_OVER_ROWS: dict[str, type[ClickModel]] = {"dlrm": RowDLRM, "neumf": RowNeuMF}


def make_click_network(
    config: Config, factors: tuple[Tensor, Tensor] | None, features: ClickFeatures, base_rate: float
) -> ClickModel:
    """Returns the model of the run on the CPU; what is random in it comes from torch's generator.

    Args:
        config: the run's settings; `config.method` is of method cadc.
        factors: users' float32 [U, d] and items' [V, d]; None where rows name nobody.
        features: of the rows.
        base_rate: share of ones among the rows trained on, at which the network starts.

    Raises:
        ConfigError: the model does not take task ctr, or needs ids that rows have not.
    """
    settings = dataclasses.asdict(config.model)
    name = settings.pop("name")
    model_for("ctr", name)
    if factors is None and name == "neumf":
        raise ConfigError(
            "Rows name no users and items, and model=neumf multiplies their vectors.",
            where="model=neumf",
            fix="model=dlrm, or dataset.user=COLUMN dataset.item=COLUMN",
        )
    ids = [embedding_of(config.method, table) for table in factors or ()]
    kind = cast(type[RowDLRM], _OVER_ROWS[name])
    made = kind(ids, features.num_dense, features.cardinalities, **settings)
    made.start_at(math.log(base_rate / (1 - base_rate)))
    return made


def positives_of(clicks: Clicks, without: Int64 | None = None) -> RecData:
    """Returns who clicked what in the training part, as data to factorise; nothing else is in them.

    Args:
        clicks: the labelled rows.
        without: int64, rows that are left out; None for none.
    """
    assert clicks.users is not None
    assert clicks.items is not None
    train = clicks.of_part("train")
    rows = train[clicks.labels[train] == 1]
    if without is not None:
        rows = np.setdiff1d(rows, without, assume_unique=True)
    users = clicks.users[rows]
    order = np.lexsort((clicks.items[rows], users))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(clicks.user_ids)))])
    none, nobody = np.empty(0, np.int64), np.empty(0, np.int32)
    cases = EvalCases(nobody, none, none, none, none)
    return RecData(
        name=clicks.name,
        content_hash=clicks.content_hash,
        sequences=Sequences(offsets.astype(np.int64), clicks.items[rows][order].astype(np.int32)),
        train_end=offsets[1:].astype(np.int64),
        valid=cases,
        test=cases,
        users=Catalogue(clicks.user_ids),
        items=Catalogue(clicks.item_ids),
        protocol=clicks.protocol,
    )
