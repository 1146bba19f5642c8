"""Ranking the catalogue by sparse tables, without making them dense."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from effrec_kernels import PackedRows, packed_scores
from torch import Tensor

from effrec_cli.evaluation.scorer import Histories, Scorer
from effrec_cli.methods.sparse.bags import BagScorer
from effrec_cli.methods.top_n.scorer import scorer_of as usual_scorer_of
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.lightgcn import LightGCN
from effrec_cli.models.multvae import MultVAE
from effrec_cli.models.pairs import PairModel
from effrec_cli.models.sparse.half import with_served_layers
from effrec_cli.models.sparse.served import ServedTable, served, served_vectors
from effrec_cli.models.sparse.tables import IdTable
from effrec_cli.models.sparse.whole import whole
from effrec_cli.schema.method_dsl import PRUNED, DSLConfig

Network = PairModel | MultVAE


def served_network(model: Network, own: DSLConfig) -> Network:
    """Returns the network with tables and layers as they are served; it shares all the rest with `model`.

    Args:
        model: that trains, or one that is served already.
        own: says what the mode makes of tables after training.
    """
    if isinstance(model, LightGCN):
        return _spread_network(model, own)
    # What a loss reads beside the tables is not served.
    made = BPRMF(model.users, model.items) if isinstance(model, BPRMF) else copy.copy(model)
    made._modules = dict(model._modules)
    for name, table in model.named_children():
        if isinstance(table, IdTable):
            made._modules[name] = table if isinstance(table, ServedTable) else as_served(table, own)
        elif name in made._modules:
            made._modules[name] = with_served_layers(table)
    return made


@torch.no_grad()
def _spread_network(model: LightGCN, own: DSLConfig) -> BPRMF:
    """Returns the product of propagated vectors: dense, however sparse the tables that they are made of."""
    if isinstance(model.users, ServedTable):
        return BPRMF(model.users, model.items)
    tables: list[Any] = [model.users, model.items]
    if own.mode == "magnitude":
        tables = [as_served(each, replace(own, values="fp32")) for each in tables]
    values = "int8" if own.mode == "dense_int8" else own.values
    return BPRMF(*(served_vectors(each, values) for each in model.spread(*map(whole, tables))))


def live_tables(model: Network, own: DSLConfig) -> list[ServedTable]:
    """Returns the tables of a network in the form that their mode serves, whatever is made of them then."""
    tables = [each for each in model.children() if isinstance(each, IdTable)]
    return [each if isinstance(each, ServedTable) else as_served(each, own) for each in tables]


def propagation_of(model: Network, tables: list[ServedTable]) -> dict[str, Any]:
    """Returns as `propagation` what one takes of tables as they are served; nothing where there is none."""
    if not isinstance(model, LightGCN) or isinstance(model.users, ServedTable):
        return {}
    live = torch.cat([table.live_by_row.cpu() for table in tables])
    return {"propagation": model.multiply_adds(live.to(model.columns.device))}


def as_served(table: IdTable, own: DSLConfig) -> ServedTable:
    """Returns a table as its mode serves it."""
    values = "int8" if own.mode == "dense_int8" else own.values
    density = own.density if own.mode in PRUNED else None
    return served(table, values, density, own.structure)


def scorer_of(model: Network, num_items: int, device: torch.device) -> Scorer:
    """Returns what ranks the catalogue by a network whose tables are served."""
    if isinstance(model, MultVAE):
        return BagScorer(model, num_items, device)
    items = model.items if isinstance(model, BPRMF) else None
    packed = items.packed if isinstance(items, ServedTable) else None
    if packed is not None:
        return ProductScorer(model, packed, num_items, device)
    return usual_scorer_of(model, num_items, device, None)


class ProductScorer:
    """Scores by products of users' vectors with a packed table; implements `Scorer`.

    Args:
        model: makes users' vectors.
        packed: the items.
        num_items: V.
        device: where it is.
    """

    def __init__(self, model: PairModel, packed: PackedRows, num_items: int, device: torch.device) -> None:
        self.model, self.packed, self.num_items, self.device = model, packed, num_items, device

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns products float32 [B, V]; 0 for users whom training never saw."""
        with torch.autocast(self.device.type, enabled=False):
            return packed_scores(self.model.user_parts(users)[0], self.packed)
