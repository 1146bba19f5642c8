"""The losses in PyTorch as operators, opaque to `torch.compile`.

Two forms of one computation:

- `loss_sum`: the weighted sum of all rows' losses. Its gradients are computed in forward, where candidates
  have been drawn and read already, and scaled in backward.
- `loss_rows`: each row's loss and log-sum-exp. Backward draws and scores the candidates again, since what
  flows into each row is known only then. Nothing but the inputs is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .compute import compute
from .looks import check_ids
from .objectives import Upstream
from .parts import ItemRows, Sums
from .problem import PROBLEM_SCHEMA, PROBLEM_SIZE, Problem


def _sums(problem: Problem, wants_hidden: bool, wants_items: bool) -> Sums:
    """Returns zeros to gather the wanted gradients in."""
    dtype = problem.accumulate_dtype
    hidden, items = (
        tensor.new_zeros(tensor.shape, dtype=dtype) if wanted else None
        for tensor, wanted in ((problem.hidden, wants_hidden), (problem.items, wants_items))
    )
    return Sums(hidden, items)


def _or_empty(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Returns `tensor`, or an empty one, since an operator returns the same number of tensors each time."""
    return like.new_empty(0) if tensor is None else tensor


def _loss_sum(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the weighted sum of losses, and its gradients by hidden states and items (or empty)."""
    problem, (row_weights, wants_hidden, wants_items) = Problem.of(flat), flat[PROBLEM_SIZE:]
    check_ids(problem)
    sums = _sums(problem, wants_hidden, wants_items)
    dtype = problem.accumulate_dtype
    weights = torch.ones_like(problem.targets, dtype=dtype) if row_weights is None else row_weights.to(dtype)
    upstream = Upstream(weights, None) if wants_hidden or wants_items else None
    loss = compute(problem, upstream, sums)[0]
    # A row without a target has loss 0, and may carry any weight, NaN too.
    total = (loss * weights.masked_fill(~problem.has_target, 0)).sum()
    return total, _or_empty(sums.hidden, total), _or_empty(sums.items, total)


def _loss_rows(*flat: Any) -> tuple[Tensor, Tensor]:
    """Returns each row's loss and log-sum-exp."""
    problem = Problem.of(flat)
    check_ids(problem)
    loss, lse = compute(problem, None, Sums(None, None))
    return loss, lse


def _loss_rows_backward(*flat: Any) -> tuple[Tensor, Tensor]:
    """Returns the gradients by hidden states and items (empty if unwanted), in the dtypes of those."""
    problem = Problem.of(flat)
    of_loss, of_lse, wants_hidden, wants_items = flat[PROBLEM_SIZE:]
    sums = _sums(problem, wants_hidden, wants_items)
    compute(problem, Upstream(of_loss, of_lse), sums)
    hidden, items = (
        None if total is None else total.to(tensor.dtype)
        for total, tensor in ((sums.hidden, problem.hidden), (sums.items, problem.items))
    )
    return _or_empty(hidden, problem.hidden), _or_empty(items, problem.items)


def _loss_rows_backward_sparse(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradient by hidden states, or an empty one; then ids and values of that by items."""
    problem = Problem.of(flat)
    of_loss, of_lse, wants_hidden = flat[PROBLEM_SIZE:]
    hidden = _sums(problem, wants_hidden, False).hidden
    rows = ItemRows.of(problem)
    compute(problem, Upstream(of_loss, of_lse), Sums(hidden, None, rows))
    of_hidden = None if hidden is None else hidden.to(problem.hidden.dtype)
    return _or_empty(of_hidden, problem.hidden), rows.ids, rows.values.to(problem.items.dtype)


def _scaled(stored: Tensor, scale: Tensor, like: Tensor, beside: Tensor) -> Tensor:
    """Returns `stored` times the number `scale` in the dtype of `like`: backward of `loss_sum`.

    `stored` is the gradient by `like`. It depends on `beside` too, and a second derivative by either must be
    noticed to be refused.
    """
    return (stored * scale).to(like.dtype)


_define = torch.library.custom_op
loss_sum = _define(
    "effrec_kernels::loss_sum",
    _loss_sum,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor? row_weights, bool wants_hidden, bool wants_items) "
    "-> (Tensor, Tensor, Tensor)",
)
loss_rows = _define(
    "effrec_kernels::loss_rows", _loss_rows, mutates_args=(), schema=f"({PROBLEM_SCHEMA}) -> (Tensor, Tensor)"
)
loss_rows_backward = _define(
    "effrec_kernels::loss_rows_backward",
    _loss_rows_backward,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor of_loss, Tensor? of_lse, bool wants_hidden, bool wants_items) "
    "-> (Tensor, Tensor)",
)
loss_rows_backward_sparse = _define(
    "effrec_kernels::loss_rows_backward_sparse",
    _loss_rows_backward_sparse,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor of_loss, Tensor? of_lse, bool wants_hidden) "
    "-> (Tensor, Tensor, Tensor)",
)
scaled = _define(
    "effrec_kernels::scaled",
    _scaled,
    mutates_args=(),
    schema="(Tensor stored, Tensor scale, Tensor like, Tensor beside) -> Tensor",
)
