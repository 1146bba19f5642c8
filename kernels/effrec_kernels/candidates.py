"""The ids that a chunk of rows is scored against, and what is added to their logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import Part
from .problem import Problem
from .samplers import fill_ids


def candidates(problem: Problem, part: Part, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns ids and starting logits [m, N + 1], the positive in column 0 and its negatives after it.

    Logits start as what is added to the products: 0 for the positive, k for usable negatives, -inf for hits
    and unused slots. Unusable slots hold the row's positive, so every id is safe to read. From a slice of the
    catalogue there are as many columns as the row with the most usable negatives needs.

    Args:
        problem: where negatives come from.
        part: the rows.
        dtype: of the ids, int32 or int64.
    """
    shape = (len(part.at), problem.num_negatives + 1)
    ids = torch.empty(shape, dtype=dtype, device=part.at.device)
    ids[:, 0] = part.positives
    fill_ids(problem, part.at, ids[:, 1:])
    unusable = _mask_unusable(problem, ids, part.targets[:, None])
    logits = torch.empty(shape, dtype=problem.accumulate_dtype, device=ids.device)
    logits[:, 0] = 0
    logits[:, 1:] = correction_term(problem, unusable, ids[:, 1:])
    logits[:, 1:].masked_fill_(unusable, float("-inf"))
    if not problem.is_slice:
        return ids, logits
    pack = Packing.of(logits != float("-inf"), least=2)
    return pack(ids, ids[:, :1]), pack(logits, logits.new_full((1, 1), float("-inf")))


@dataclass(frozen=True)
class Packing:
    """Moves the slots of each row that are kept to its left.

    Attributes:
        places: int64 [m, N], where each slot goes; `width` for those that are left out.
        width: as many as the row that keeps the most.
    """

    places: Tensor
    width: int

    @classmethod
    def of(cls, keep: Tensor, least: int = 1) -> Packing:
        """Returns the packing of the slots `keep`, bool [m, N], into `least` columns or more."""
        counts = keep.cumsum(dim=1)
        width = max(least, int(counts[:, -1].max()))
        return cls(torch.where(keep, counts - 1, width), width)

    def __call__(self, slots: Tensor, fill: Tensor) -> Tensor:
        """Returns [m, width]: what was kept of `slots` [m, N], and `fill` (broadcast) behind it."""
        out = fill.expand(len(slots), self.width + 1).clone()
        return out.scatter_(1, self.places, slots)[:, : self.width]


def all_negatives(problem: Problem) -> Tensor:
    """Returns the ids [M, N] of all rows at once, int64, outside [0, V) in unused slots."""
    at = torch.arange(len(problem.targets), device=problem.targets.device)
    ids = at.new_empty(len(at), problem.num_negatives)
    fill_ids(problem, at, ids)
    return ids


def _mask_unusable(problem: Problem, ids: Tensor, targets: Tensor) -> Tensor:
    """Returns bool [m, N], true at hits and unused slots, which come to hold their row's positive."""
    positives, negatives = ids[:, :1], ids[:, 1:]
    unusable = negatives == targets
    if problem.may_miss:
        outside = (negatives < 0) | (negatives >= len(problem.items))
        unusable |= outside
        negatives.copy_(torch.where(outside, positives, negatives))
    return unusable


def correction_term(problem: Problem, unusable: Tensor, ids: Tensor) -> Tensor | float:
    """Returns k, added to the logits of negatives: a number, or a float tensor that broadcasts to `unusable`.

    `exact` is log((V-1) / (N-r)) with r unusable slots in the row, `constant` log((V-1) / (N+1)),
    `none` zero (papers on CCE-: the PyTorch loss, the Triton kernels, and the plain sampled softmax); `logq`
    is -log(N q) with q the probability that a slot holds the item.

    Args:
        problem: what is added, and the probabilities.
        unusable: bool [..., N], slots that are left out.
        ids: [..., N] in [0, V), of shape that broadcasts to `unusable`.
    """
    others = _others(problem)
    if problem.correction == "none":
        return 0.0
    if problem.correction == "constant":
        return math.log(others) - math.log(problem.num_negatives + 1)
    if problem.correction == "logq":
        return _log_q_term(problem, ids)
    return exact_term(problem, problem.num_negatives - unusable.sum(dim=-1, keepdim=True))


def exact_term(problem: Problem, usable: Tensor) -> Tensor:
    """Returns log((V-1) / n) for n usable negatives; a row without one has no term for k to be in."""
    return math.log(_others(problem)) - usable.clamp(min=1).to(problem.accumulate_dtype).log_()


def _others(problem: Problem) -> int:
    return max(problem.num_items - 1, 1)


def _log_q_term(problem: Problem, ids: Tensor) -> Tensor | float:
    draws = math.log(problem.num_negatives)
    if problem.log_q is None:
        return -draws - problem.flat_log_q
    log_q = problem.log_q.index_select(0, ids.flatten()).view_as(ids)
    return -draws - log_q.to(problem.accumulate_dtype)
