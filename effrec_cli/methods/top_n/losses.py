"""The losses of task top_n: from a micro-batch to a sum over its rows, divided by the step's."""

from __future__ import annotations

from typing import cast

import effrec_kernels
import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.data.batches import Batch
from effrec_cli.models.pairs import PairModel
from effrec_cli.models.two_tower import TwoTower
from effrec_cli.schema.method_cadc import CADCConfig


def loss_of(model: PairModel, batch: Batch, own: CADCConfig, seed: int) -> Tensor:
    """Returns the loss that `own.loss` names; shares of a step add up to that of the whole."""
    if own.loss == "bce":
        return binary(model, batch)
    towers = cast(TwoTower, model)
    if own.loss == "softmax":
        return in_batch(towers, batch, own.temperature)
    return over_catalogue(towers, batch, own, seed)


def binary(model: PairModel, batch: Batch) -> Tensor:
    """Returns the mean binary cross-entropy of each row's item (1) and negatives (0), by the rows' weights.

    A negative of -1 is none.
    """
    tensors = batch.tensors
    own = tensors["items"][:, None]
    items = torch.cat([own, tensors["negatives"]], 1)
    there = items >= 0
    logits = model(tensors["users"], torch.where(there, items, own)).float()  # no other vector is read
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * there
    return _weighed(each.sum(1) / items.shape[1], batch)


def in_batch(model: TwoTower, batch: Batch, temperature: float) -> Tensor:
    """Returns the softmax of each row's item against the step's other items, corrected by logQ.

    Each of the C items stands in the sum as often as the step has it, its logit lowered by the logarithm of
    how often training has it (Yi et al. 2019); the row's own item stands there once, whichever rows it is
    in: an item is no negative of itself. Known positives of the row's user, where the batch names them, are
    none either.
    """
    tensors, labels = batch.tensors, batch.tensors["labels"]
    users, items = model.user_vectors(tensors["users"]), model.item_vectors(tensors["candidates"])
    with torch.autocast(users.device.type, enabled=False):
        logits = (users.float() @ items.float().T) * (model.scale / temperature)
        logits = logits + (tensors["log_times"] - tensors["log_p"])
        rows = torch.arange(len(labels), device=labels.device)
        logits = logits.index_put((rows, labels), -tensors["log_times"][labels], accumulate=True)
        if "met_rows" in tensors:
            nothing = torch.full((), -torch.inf, device=logits.device)
            logits = logits.index_put((tensors["met_rows"], tensors["met_columns"]), nothing)
        return _weighed(F.cross_entropy(logits, labels, reduction="none"), batch)


def over_catalogue(model: TwoTower, batch: Batch, own: CADCConfig, seed: int) -> Tensor:
    """Returns the softmax of each row's item against the catalogue, or against negatives the kernel draws.

    The item tower runs over all items, once a micro-batch.
    """
    tensors = batch.tensors
    hidden = model.user_vectors(tensors["users"])
    items = model.item_vectors(torch.arange(len(model.items.table), device=hidden.device))
    hidden = (hidden * model.scale).to(items.dtype)
    if own.loss == "cce":
        return effrec_kernels.linear_cross_entropy(
            hidden,
            items,
            tensors["items"],
            temperature=own.temperature,
            row_weights=tensors.get("weights"),
            normalizer=batch.total_targets,
        )
    return effrec_kernels.sampled_cross_entropy(
        hidden,
        items,
        tensors["items"],
        num_negatives=own.num_negatives,
        seed=seed,
        step=batch.step,
        row_offset=batch.first_target,
        temperature=own.temperature,
        row_weights=tensors.get("weights"),
        normalizer=batch.total_targets,
    )


def _weighed(losses: Tensor, batch: Batch) -> Tensor:
    """Returns the sum of rows' losses [b] by their weights, over the rows of the step."""
    weights = batch.tensors.get("weights")
    return (losses if weights is None else losses * weights).sum() / batch.total_targets
