"""The ids that a chunk of rows is scored against, and what is added to their logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import Problem
from .rng import fill_negatives


def candidate_ids(problem: Problem, at: Tensor, targets: Tensor, out: Tensor) -> None:
    """Writes ids into `out` [m, N + 1]: the positive in column 0, then the negatives, given or drawn.

    Args:
        problem: where negatives come from.
        at: int64 [m], the rows' positions in the batch.
        targets: int64 [m], positives; 0 in rows without loss.
        out: int32 or int64.
    """
    out[:, 0] = targets
    if problem.negatives is None:
        rows = problem.rows.index_select(0, at)
        fill_negatives(out[:, 1:], rows, len(problem.items), seed=problem.seed, step=problem.step)
    else:
        out[:, 1:] = problem.negatives.index_select(0, at)


def mask_unusable(problem: Problem, ids: Tensor) -> Tensor:
    """Returns bool [m, N], true at negatives that hit the positive or are unused slots, made safe to read.

    Unused slots and all slots of rows without loss come to hold the row's positive: a valid id, whose logit
    is masked.
    """
    positives, negatives = ids[:, :1], ids[:, 1:]
    unusable = negatives == positives
    if problem.negatives is not None:
        outside = (negatives < 0) | (negatives >= len(problem.items))
        unusable |= outside
        negatives.copy_(torch.where(outside, positives, negatives))
    return unusable


def correction_term(problem: Problem, unusable: Tensor) -> Tensor | float:
    """Returns k, added to the logits of negatives: float [m, 1], or one number for all rows.

    `exact` is log((V-1) / (N-r)) with r unusable slots in the row, `constant` log((V-1) / (N+1)),
    `none` zero (papers on CCE-: the PyTorch loss, the Triton kernels, and the plain sampled softmax).
    """
    others = max(len(problem.items) - 1, 1)
    if problem.correction == "none":
        return 0.0
    if problem.correction == "constant":
        return math.log(others) - math.log(problem.num_negatives + 1)
    usable = problem.num_negatives - unusable.sum(dim=1, keepdim=True)
    # A row without a usable negative has no term for k to be in.
    return math.log(others) - usable.clamp_(min=1).to(problem.accumulate_dtype).log_()
