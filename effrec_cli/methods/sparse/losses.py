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
from effrec_cli.models.pairs import PairModel
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
    return binary(after, batch) if name == "bce" else ranked(after, batch, own.reg, before)


def constrained(model: UltraGCN, batch: Batch, reg: float) -> Tensor:
    """Returns the mean of UltraGCN's losses of rows, by their weights."""
    tensors = batch.tensors
    of_rows = model.loss_of_rows(
        tensors["users"], tensors["items"], tensors["negatives"], reg / batch.total_targets
    )
    return _weighed(of_rows, batch)


def ranked(model: PairModel, batch: Batch, reg: float, before: PairModel | None = None) -> Tensor:
    """Returns the rows' mean softplus(s_negative - s_positive), by their weights, with the regulariser.

    The regulariser is reg / 2 times the squares of the vectors read, each row's own (LightGCN, equation 15).
    A negative of -1 is none.

    Args:
        model: that scores.
        batch: rows and negatives.
        reg: lambda.
        before: whose vectors are regularised; None is the one that scores.
    """
    tensors = batch.tensors
    items = torch.cat([tensors["items"][:, None], tensors["negatives"]], 1)
    users, vectors = model.user_parts(tensors["users"]), model.item_parts(items.clamp(min=0))
    scores = model.combine(users, vectors).float()
    each = F.softplus(scores[:, 1:] - scores[:, :1]) * (items[:, 1:] >= 0)
    losses = each.sum(1) / (items.shape[1] - 1)
    if reg:
        if before is not None and before is not model:
            users, vectors = before.user_parts(tensors["users"]), before.item_parts(items.clamp(min=0))
        squares = users[0].float().square().sum(1) + vectors[0].float().square().sum((1, 2))
        losses = losses + 0.5 * reg * squares
    return _weighed(losses, batch)


def _weighed(losses: Tensor, batch: Batch) -> Tensor:
    """Returns the sum of rows' losses [b] by their weights, over the rows of the step."""
    weights = batch.tensors.get("weights")
    return (losses if weights is None else losses * weights).sum() / batch.total_targets
