"""How well a network tells labels: judged on every row of a held-out part."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.data.click_batches import tensors_of
from effrec_cli.data.click_features import ClickFeatures
from effrec_cli.data.types import Int64
from effrec_cli.distributed import World
from effrec_cli.errors import NonFiniteError
from effrec_cli.evaluation.auc import auc, log_loss
from effrec_cli.evaluation.calibration import (
    BINS,
    calibration,
    expected_calibration_error,
    normalised_entropy,
)

ROWS = 1 << 13
"""Rows judged at once; the same for every number of ranks, so that none changes a bit of a metric."""


@torch.no_grad()
def logits_of(
    model: nn.Module, features: ClickFeatures, rows: Int64, shift: float, world: World
) -> NDArray[np.float64]:
    """Returns the logits float64 [n] of some rows; every rank calls it and gets the same.

    Args:
        model: a `ClickModel` in evaluation mode.
        features: of all rows.
        rows: int64 [n].
        shift: added to each: the logarithm of the share of zeros that training has kept (papers/cadc 4.2.3).
        world: who shares the rows.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    found = torch.zeros(len(rows), dtype=torch.float64, device=world.device)
    for number, low in enumerate(range(0, len(rows), ROWS)):
        if number % world.size == world.rank:
            some = slice(low, low + ROWS)
            tensors = tensors_of(features, rows[some])
            found[some] = called(model, {name: t.to(world.device) for name, t in tensors.items()}).double()
    world.sum_([found])  # each was found by one rank, and is 0 on all others
    if not bool(found.isfinite().all()):
        raise NonFiniteError("The model gave a logit that is not a number.", where="judging labelled rows")
    return found.cpu().numpy() + shift


def called(model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    """Returns the model's logits [B] of a batch."""
    logits: Tensor = model(tensors["ids"], tensors["dense"], tensors["categories"])
    return logits


def metrics_of_labels(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Returns the metrics of task ctr; both labels must be there.

    They are `auc`, `log_loss` in nats, `ne` (log loss over the entropy of the base rate), `calibration` (mean
    probability over mean label) and `ece`.
    """
    loss = log_loss(logits, labels)
    return {
        "auc": auc(logits, labels),
        "log_loss": loss,
        "ne": normalised_entropy(loss, float(np.mean(labels))),
        "calibration": calibration(logits, labels),
        "ece": expected_calibration_error(logits, labels),
    }


def stamp(protocol: dict[str, Any]) -> dict[str, Any]:
    """Returns the stamp of the metrics over rows whose parts were made by this protocol."""
    return {
        "task": "ctr",
        **protocol,
        "judged": "every held-out row",
        "auc": "pooled over rows, ties count half",
        "ece": f"{BINS} groups of equal size by logit, ties together",
    }
