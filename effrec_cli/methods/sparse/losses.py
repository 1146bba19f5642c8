"""The losses of method dsl: from a micro-batch to a sum over its rows, divided by the step's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.data.batches import Batch
from effrec_cli.methods.top_n.losses import binary
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.lightgcn import LightGCN
from effrec_cli.models.multvae import MultVAE
from effrec_cli.models.pairs import PairModel, Parts
from effrec_cli.models.sparse.tables import IdTable
from effrec_cli.models.ultragcn import UltraGCN
from effrec_cli.schema.method_dsl import DSLConfig


def loss_of(model: PairModel | MultVAE, batch: Batch, own: DSLConfig) -> Tensor:
    """Returns the loss that `own.loss` names, or the model's own; shares of a step add up to the whole's."""
    if isinstance(model, MultVAE):
        parts = batch.tensors
        of_users = model.loss_of_users(parts["items"], parts["offsets"], batch.step, parts.get("weights"))
        return of_users.sum() / batch.total_targets
    if isinstance(model, UltraGCN):
        return constrained(model, batch, own.reg)
    before, after = model.before_and_after() if isinstance(model, LightGCN) else (model, model)
    name = own.loss
    if name == "auto":
        name = "bpr" if isinstance(after, BPRMF) else "bce"
    if name == "bpr":
        return ranked(after, batch, own.reg, before)
    loss = binary(after, batch)
    return loss + own.reg * _weighed(squares(before, batch), batch) if own.reg else loss


def constrained(model: UltraGCN, batch: Batch, reg: float) -> Tensor:
    """Returns the mean of UltraGCN's losses of rows, by their weights."""
    tensors = batch.tensors
    of_rows = model.loss_of_rows(
        tensors["users"], tensors["items"], tensors["negatives"], reg / batch.total_targets
    )
    return _weighed(of_rows, batch)


def ranked(model: PairModel, batch: Batch, reg: float, before: PairModel | None = None) -> Tensor:
    """Returns the rows' mean softplus(s_negative - s_positive), by their weights, with the regulariser.

    Args:
        model: that scores.
        batch: rows and negatives; -1 is none.
        reg: lambda, of `squares`.
        before: whose vectors are regularised; None is the one that scores.
    """
    items, there = read_items(batch)
    parts = model.user_parts(batch.tensors["users"]), model.item_parts(items)
    scores = model.combine(*parts).float()
    each = F.softplus(scores[:, 1:] - scores[:, :1]) * there[:, 1:]
    losses = each.sum(1) / (items.shape[1] - 1)
    if reg:
        ours = before is None or before is model
        losses = losses + reg * squares(before or model, batch, parts if ours else None)
    return _weighed(losses, batch)


def squares(model: PairModel, batch: Batch, parts: tuple[Parts, Parts] | None = None) -> Tensor:
    """Returns half of the squares of the vectors that each row reads, float32 [b] (LightGCN, equation 15).

    Args:
        model: whose tables are meant, all that it has of users and of items.
        batch: rows and negatives; those that are none count nothing.
        parts: what the model has made of users and items, where that is at hand.
    """
    items, there = read_items(batch)
    users = batch.tensors["users"]
    if isinstance(model, BPRMF):  # its parts are the vectors
        ours, theirs = parts or (model.user_parts(users), model.item_parts(items))
        return 0.5 * (_squares(ours[0]) + (_squares(theirs[0]) * there).sum(1))
    found = torch.zeros(len(users), device=users.device)
    for name, table in model.named_children():
        if isinstance(table, IdTable) and "users" in name:
            found = found + _squares(table(users))
        elif isinstance(table, IdTable):
            found = found + (_squares(table(items)) * there).sum(1)
    return 0.5 * found


def _squares(vectors: Tensor) -> Tensor:
    return vectors.float().square().sum(-1)


def read_items(batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns each row's item and negatives, int64 [b, 1 + K], and which of them there are, bool.

    In the place of a negative of -1, which is none, stands the row's own item: no other vector is read.
    """
    own, drawn = batch.tensors["items"][:, None], batch.tensors["negatives"]
    items, there = torch.cat([own, drawn], 1), torch.cat([own >= 0, drawn >= 0], 1)
    return torch.where(there, items, own), there


def _weighed(losses: Tensor, batch: Batch) -> Tensor:
    """Returns the sum of rows' losses [b] by their weights, over the rows of the step."""
    weights = batch.tensors.get("weights")
    return (losses if weights is None else losses * weights).sum() / batch.total_targets
