"""The network of a run: vectors of ids by a strategy, attributes, and the model that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from effrec_cli.backbone import model_for
from effrec_cli.data.attributes import Attributes
from effrec_cli.models.attributes import COLUMNS, AttributeTable
from effrec_cli.models.id_embeddings import STRATEGIES, IdEmbedding, drawn
from effrec_cli.models.pairs import PairModel
from effrec_cli.schema import Config

Tables = tuple[AttributeTable, AttributeTable]


def make_network(config: Config, factors: tuple[Tensor, Tensor], tables: Tables) -> PairModel:
    """Returns the model of the run on the CPU; what is random in it comes from torch's generator.

    Args:
        config: the run's settings; `config.method` is of method cadc.
        factors: users' float32 [U, d] and items' [V, d]; of `embedding=rand` only the shapes are looked at.
        tables: the attributes of users and items.
    """
    own, settings = config.method, dataclasses.asdict(config.model)
    kind = model_for("top_n", settings.pop("name"))
    if own.embedding == "residual":
        settings["residual"] = True
    users, items = (embedding_of(own, table) for table in factors)
    return cast(PairModel, kind(users, items, *tables, **settings))


def embedding_of(own: Any, table: Tensor) -> IdEmbedding:
    """Returns vectors of ids by the run's strategy."""
    if own.embedding == "rand":
        return drawn(*table.shape)
    return STRATEGIES[own.embedding](table, own.own_dim)


def table_of(attributes: Attributes) -> AttributeTable:
    """Returns attributes as buffers of a network."""
    return AttributeTable(*(torch.from_numpy(getattr(attributes, name)) for name in COLUMNS))


def tables_in(state: Mapping[str, Tensor]) -> Tables:
    """Returns the attributes that a saved network brings with it."""
    user, item = (_prefix(state, side) for side in ("user", "item"))
    return AttributeTable.of_state(state, user), AttributeTable.of_state(state, item)


def _prefix(state: Mapping[str, Tensor], side: str) -> str:
    """Returns under which name the attributes of `user` or `item` stand, the model's own business."""
    return next(
        name.removesuffix("cardinalities")
        for name in state
        if name.startswith(side) and name.endswith("table.cardinalities")
    )
