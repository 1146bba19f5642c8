"""The network of a run of method dsl: tables as its mode stores them, and the model that reads them."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch

from effrec_cli.backbone import model_for
from effrec_cli.data.types import RecData
from effrec_cli.methods.sparse.graphs import constraints_of, graph_of
from effrec_cli.methods.sparse.layers import with_layers
from effrec_cli.models.attributes import AttributeTable
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.lightgcn import LightGCN
from effrec_cli.models.multvae import MultVAE
from effrec_cli.models.pairs import PairModel
from effrec_cli.models.sparse.tables import KINDS, IdTable, Shape
from effrec_cli.models.ultragcn import UltraGCN
from effrec_cli.schema import Config
from effrec_cli.schema.method_dsl import SPARSE, dim_of, first_live_of, small_dim, storage_of
from effrec_cli.seeds import mix


def make_network(config: Config, data: RecData, *, trains: bool = True) -> PairModel | MultVAE:
    """Returns the model of the run on the CPU; what is random in it comes from torch's generator.

    Args:
        config: the run's settings; `config.method` is of method dsl.
        data: says how many users and items there are, and models of graphs read the training rows.
        trains: whether it does; a network that is opened to score reads no rows.

    Raises:
        ConfigError: no layer of it can be what `method.layers` says.
    """
    settings = dataclasses.asdict(config.model)
    kind = model_for("top_n", settings.pop("name"))
    sizes, make = (data.num_users, data.num_items), TableMaker(config)
    if kind is MultVAE:
        return MultVAE(data.num_items, make, **settings)
    users, items = (make(rows) for rows in sizes)
    if kind is BPRMF:
        return BPRMF(users, items)
    if kind is LightGCN:
        return LightGCN(users, items, graph_of(data) if trains else None, **settings)
    if kind is UltraGCN:
        read = constraints_of(data, settings["num_neighbors"]) if trains else None
        return UltraGCN(users, items, read, **settings)
    nothing = (AttributeTable.nothing(rows) for rows in sizes)
    model = cast(PairModel, kind(users, items, *nothing, **settings))
    with_layers(model, config.method)
    return model


class TableMaker:
    """Makes tables one after the other, each with a seed of its own."""

    def __init__(self, config: Config) -> None:
        self._own, self._seed, self._made = config.method, config.seed, 0
        self._storage = storage_of(config.method, config.model.name)

    def __call__(self, rows: int, width: int | None = None, deviation: float | None = None) -> IdTable:
        """Returns a table of so many rows, as wide and deviating at first as said, or as the settings say."""
        own, seed = self._own, mix(self._seed, self._made)
        self._made += 1
        dim, deviation = width or dim_of(own), deviation or own.init_sd
        if own.mode in SPARSE:
            density = first_live_of(own) / dim if own.mode == "topk_anneal" else own.density
            return KINDS[self._storage](Shape(rows, dim, density, own.structure, seed, deviation))
        return KINDS["dense"](
            Shape(rows, small_dim(own) if own.mode == "dense_small" else dim, deviation=deviation)
        )


def slots_of(table: IdTable, rows: int) -> int:
    """Returns how many rows of a table's weights the gradient of so many of its rows has, about."""
    return min(table.shape.rows, rows) * len(table.weights) // max(1, table.shape.rows)


def tables_in(model: torch.nn.Module) -> dict[str, IdTable]:
    """Returns a network's tables by name."""
    return {name: each for name, each in model.named_children() if isinstance(each, IdTable)}
