"""A problem to its result: rows or their sum from whoever computes, weighted, summed and divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import reference
from .autograd import loss_rows, loss_sum
from .candidates import all_negatives
from .checks import check_no_forward_mode
from .looks import check_ids
from .problem import Problem
from .samplers import NO_ITEM
from .values import yes_or_no

# The gradient of a larger table is not held between forward and backward: backward computes it.
HELD_TABLE_BYTES = 64 << 20


@dataclass(frozen=True)
class Reduction:
    """How rows' losses become a result.

    Attributes:
        kind: `none` keeps [M]; `sum`; `mean` divides the sum by the count of rows, whatever their weights.
        row_weights: [M], multiplies rows' losses; those of rows that do not count are not looked at.
        normalizer: divides the sum, in place of the count under `mean`; 0 counts as 1.
    """

    kind: str
    row_weights: Tensor | None = None
    normalizer: float | Tensor | None = None

    def __call__(self, loss: Tensor, counted: Tensor) -> Tensor:
        """Returns rows' losses [M] weighted and reduced; those not `counted`, bool [M], are 0."""
        loss = self.weigh(loss, counted)
        return loss if self.kind == "none" else self.divide(loss.sum(), counted)

    def weigh(self, loss: Tensor, counted: Tensor) -> Tensor:
        """Returns rows' losses [M] times their weights, 0 in place of those of rows that do not count."""
        if self.row_weights is None:
            return loss
        return loss * self.row_weights.to(loss.dtype).masked_fill(~counted, 0)

    def divide(self, total: Tensor, counted: Tensor) -> Tensor:
        """Returns the sum over rows divided; no rows at all give 0."""
        if self.normalizer is None and self.kind == "sum":
            return total
        by = counted.sum() if self.normalizer is None else self.normalizer
        if isinstance(by, Tensor):
            return total / torch.where(by == 0, 1, by).to(total.dtype)
        return total / (by or 1.0)


def evaluate(problem: Problem, reduction: Reduction, return_lse: bool = False) -> Any:
    """Returns the reduced loss of `problem`, and with `return_lse` each row's log-sum-exp [M] beside it."""
    yes_or_no("return_lse", return_lse)
    if problem.kernel != "reference":
        check_no_forward_mode(problem)
    if problem.kernel == "torch" and not return_lse and _gradients_can_be_held(problem, reduction):
        total, _, _ = loss_sum(*problem.flat(), reduction.row_weights, *_wanted(problem))
        return reduction.divide(total, problem.has_target)
    loss, lse = (_sparse_rows if problem.sparse else _ROWS[problem.kernel])(problem)
    reduced = reduction(loss, problem.has_target)
    return (reduced, lse) if return_lse else reduced


def _torch_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    return loss_rows(*problem.flat())


def _triton_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    from .triton_kernels.operators import fused_rows

    return fused_rows(problem)


@torch.compiler.disable
def _sparse_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Returns the same outside of compiled graphs, which know no sparse tensors."""
    return _ROWS[problem.kernel](problem)


def _wanted(problem: Problem) -> tuple[bool, bool]:
    """Returns whether gradients by hidden states and by items are wanted."""
    enabled = torch.is_grad_enabled()
    return enabled and problem.hidden.requires_grad, enabled and problem.items.requires_grad


def _gradients_can_be_held(problem: Problem, reduction: Reduction) -> bool:
    """Returns whether forward may compute the gradients: one number flows back, and a table's worth fits."""
    if reduction.kind == "none" or problem.sparse:
        return False
    if reduction.row_weights is not None and reduction.row_weights.requires_grad:
        return False
    table_bytes = problem.items.numel() * problem.accumulate_dtype.itemsize
    return not problem.items.requires_grad or table_bytes <= HELD_TABLE_BYTES


def _reference_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Returns the oracle's rows, on inputs rounded to the compute dtype, in the accumulate dtype."""
    check_ids(problem)
    dtype = problem.compute_dtype
    operands = problem.hidden.to(dtype), problem.items.to(dtype), problem.targets
    options: dict[str, Any] = {"ignore_index": problem.ignore_index, "temperature": problem.temperature}
    if problem.num_negatives == 0:
        loss, lse = reference.full_rows(*operands, **options)
    elif problem.objective == "binary":
        loss = reference.binary_rows(*operands, _negatives(problem), beta=problem.beta, **options)
        lse = torch.zeros_like(loss)
    else:
        log_q = problem.flat_log_q if problem.log_q is None else problem.log_q
        loss, lse = reference.sampled_rows(
            *operands, _negatives(problem), correction=problem.correction, log_q=log_q, **options
        )
    return loss.to(problem.accumulate_dtype), lse.to(problem.accumulate_dtype)


def _negatives(problem: Problem) -> Tensor:
    """Returns the ids [M, N] of all rows, -1 in unused slots."""
    ids = all_negatives(problem)
    return ids.masked_fill((ids < 0) | (ids >= len(problem.items)), NO_ITEM)


# Each row's loss and log-sum-exp [M], by who computes.
_ROWS = {"torch": _torch_rows, "triton": _triton_rows, "reference": _reference_rows}
