"""Softmax losses of next items over a table that may be sparse, of which nothing of [V, D] is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from effrec_kernels import (
    draw_negatives,
    linear_cross_entropy,
    packed_linear_cross_entropy,
    sampled_cross_entropy,
)
from torch import Tensor

from effrec_cli.models.sparse.tables import IdTable, PackedTable
from effrec_cli.models.sparse.whole import whole


@dataclass(frozen=True)
class Targets:
    """The rows with a loss of a micro-batch.

    Attributes:
        hidden: [M, D].
        items: int64 [M], what they are to tell.
        normalizer: rows with a loss in the whole step.
    """

    hidden: Tensor
    items: Tensor
    normalizer: int


def full(table: IdTable, targets: Targets) -> Tensor:
    """Returns the softmax over all items; the gradient of the table is dense over what it stores."""
    if not isinstance(table, PackedTable):
        return linear_cross_entropy(
            targets.hidden, whole(table), targets.items, normalizer=targets.normalizer
        )
    scores = None if table.scores is None else table.scores.add
    return packed_linear_cross_entropy(
        targets.hidden, table.packed, targets.items, normalizer=targets.normalizer, scores=scores
    )


def sampled(table: IdTable, targets: Targets, num_negatives: int, *, seed: int, step: int) -> Tensor:
    """Returns the softmax against uniform negatives that all rows of a step share; reads rows of the table.

    They are those that method cce draws with `sharing=batch`, corrected as by `correction=logq`: a negative
    stands for V / N items. Ranks and micro-batches draw the same.

    Args:
        table: of V items.
        targets: of a micro-batch.
        num_negatives: N.
        seed: of the run.
        step: optimizer step.
    """
    everyone, rows = targets.items.new_zeros(1), table.shape.rows
    drawn = draw_negatives(everyone, num_negatives, rows, seed=seed, step=step)[0]
    ids, places = torch.cat([drawn, targets.items]).unique(return_inverse=True)
    vectors = table.look_up(ids)
    loss: Tensor = sampled_cross_entropy(
        targets.hidden,
        vectors,
        places[num_negatives:],
        negatives=places[None, :num_negatives],
        sharing="batch",
        correction="logq",
        log_q=torch.full((len(ids),), -math.log(rows), device=ids.device),
        normalizer=targets.normalizer,
    )
    return loss
