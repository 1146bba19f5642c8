"""What a loss costs in arithmetic, told to PyTorch's `FlopCounterMode`: it cannot look into an operator."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from . import ops  # noqa: F401 - defines the operators that the formulas are about
from .problem import PROBLEM_SIZE, Problem


def loss_flops(rows: int, candidates: int, dim: int) -> int:
    """Returns the operations of all logits of `rows`, a multiply-add as two: 2 M S D.

    That is the loss as it is defined. A kernel that multiplies more rows of the table than it needs, since
    that is faster, is not credited for them.
    """
    return 2 * rows * candidates * dim


_counted = (torch.ops.effrec_kernels.loss_sum, torch.ops.effrec_kernels.loss_rows)


@register_flop_formula(_counted, get_raw=True)
def _forward(*flat: Any, **_: Any) -> int:
    """Returns the operations of a forward pass and of the gradients that are computed along with it."""
    return passes(flat, 1 + sum(flat[PROBLEM_SIZE + 1 :]))


@register_flop_formula(torch.ops.effrec_kernels.loss_rows_backward, get_raw=True)
def _backward(*flat: Any, **_: Any) -> int:
    """Returns the operations of a backward pass: logits again, and each gradient that is wanted."""
    return passes(flat, 1 + sum(flat[-2:]))


@register_flop_formula(torch.ops.effrec_kernels.loss_rows_backward_sparse, get_raw=True)
def _backward_sparse(*flat: Any, **_: Any) -> int:
    """Returns the same, the gradient by items among those that are wanted."""
    return passes(flat, 2 + flat[-1])


def passes(flat: tuple[Any, ...], times: int) -> int:
    """Returns the operations of `times` products of rows with their candidates.

    Args:
        flat: the arguments of an operator, those of its problem first.
        times: how many products.
    """
    problem = Problem.of(flat)
    candidates = problem.num_negatives + 1 if problem.num_negatives else len(problem.items)
    return times * loss_flops(len(problem.hidden), candidates, problem.hidden.shape[1])
