"""The Triton kernels as operators, opaque to `torch.compile`, with their derivatives.

Forward gathers the gradient by hidden states while it reads the candidates; backward scales it by what flows
into each row, and reads the candidates once more for the gradient by items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..flops import passes
from ..looks import check_ids
from ..problem import PROBLEM_SCHEMA, PROBLEM_SIZE, Problem
from ..row_sparse import RowSparse
from ..saved import Context, keep, kept, refuse_derivative
from . import launch
from .items import backward_item_rows, backward_items


def fused_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Returns each row's loss and log-sum-exp, float32 [M], both differentiable."""
    wants_unit = torch.is_grad_enabled() and problem.hidden.requires_grad
    loss, lse, _, _ = _forward(*problem.flat(), wants_unit)
    return loss, lse


def _run_forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem, wants_unit = Problem.of(flat), flat[-1]
    check_ids(problem)
    results = launch.forward(problem, wants_unit)
    unit = problem.hidden.new_empty(0) if results.unit is None else results.unit
    return results.loss, results.lse, results.shift, unit


def _run_backward_items(*flat: Any) -> Tensor:
    """Returns the gradient by items in their dtype, summed in float32."""
    problem = Problem.of(flat)
    return backward_items(problem, *flat[PROBLEM_SIZE:]).to(problem.items.dtype)


def _run_backward_item_rows(*flat: Any) -> tuple[Tensor, Tensor]:
    """Returns ids and values of the gradient's rows, the values in the items' dtype."""
    problem = Problem.of(flat)
    rows, values = backward_item_rows(problem, *flat[PROBLEM_SIZE:])
    return rows, values.to(problem.items.dtype)


def _run_backward_hidden(*flat: Any) -> Tensor:
    """Returns the gradient by hidden states: each row's unit gradient times what flows into the row."""
    return launch.backward_hidden(Problem.of(flat), *flat[PROBLEM_SIZE:])


_define = torch.library.custom_op
_forward = _define(
    "effrec_kernels::fused_forward",
    _run_forward,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, bool wants_unit) -> (Tensor, Tensor, Tensor, Tensor)",
)
_backward_items = _define(
    "effrec_kernels::fused_backward_items",
    _run_backward_items,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor loss, Tensor shift, Tensor of_loss, Tensor? of_lse) -> Tensor",
)
_backward_item_rows = _define(
    "effrec_kernels::fused_backward_item_rows",
    _run_backward_item_rows,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor loss, Tensor shift, Tensor of_loss, Tensor? of_lse) "
    "-> (Tensor, Tensor)",
)
_backward_hidden = _define(
    "effrec_kernels::fused_backward_hidden",
    _run_backward_hidden,
    mutates_args=(),
    schema=f"({PROBLEM_SCHEMA}, Tensor unit, Tensor of_loss, Tensor? of_lse) -> Tensor",
)


@_forward.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, wants_unit = flat[0], flat[-1]
    loss, lse, shift = (hidden.new_empty(hidden.shape[:1], dtype=torch.float32) for _ in range(3))
    return loss, lse, shift, hidden.new_empty(hidden.shape if wants_unit else (0,))


@_backward_items.register_fake
def _(*flat: Any) -> Tensor:
    return flat[1].new_empty(flat[1].shape)


@_backward_hidden.register_fake
def _(*flat: Any) -> Tensor:
    return flat[0].new_empty(flat[0].shape)


@register_flop_formula(torch.ops.effrec_kernels.fused_forward, get_raw=True)
def _forward_flops(*flat: Any, **_: Any) -> int:
    """Returns the operations of logits, and of the gradient by hidden states where it is gathered."""
    return passes(flat, 1 + flat[-1])


_OF_ITEMS = (torch.ops.effrec_kernels.fused_backward_items, torch.ops.effrec_kernels.fused_backward_item_rows)


@register_flop_formula(_OF_ITEMS, get_raw=True)
def _backward_flops(*flat: Any, **_: Any) -> int:
    """Returns the operations of logits again, and of the gradient by items."""
    return passes(flat, 2)


def _keep(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps inputs, and what forward left for backward."""
    loss, _, shift, unit = output
    ctx.mark_non_differentiable(shift, unit)
    ctx.set_materialize_grads(False)
    keep(ctx, inputs[:PROBLEM_SIZE], loss, shift, unit)


def _run_backward(ctx: Context, of_loss: Tensor | None, of_lse: Tensor | None, *_: Any) -> tuple[Any, ...]:
    gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
    if of_loss is None and of_lse is None:
        return tuple(gradients)
    flat, (loss, shift, unit) = kept(ctx)
    of_loss = torch.zeros_like(loss) if of_loss is None else of_loss.contiguous()
    of_lse = None if of_lse is None else of_lse.contiguous()
    if ctx.needs_input_grad[0]:
        gradients[0] = _backward_hidden(*flat, unit, of_loss, of_lse)
    if ctx.needs_input_grad[1] and Problem.of(flat).sparse:
        rows, values = _backward_item_rows(*flat, loss, shift, of_loss, of_lse)
        gradients[1] = RowSparse(rows, values, len(flat[1])).gradient()
    elif ctx.needs_input_grad[1]:
        gradients[1] = _backward_items(*flat, loss, shift, of_loss, of_lse)
    return tuple(gradients)


_forward.register_autograd(_run_backward, setup_context=_keep)
for _backward in (_backward_items, _backward_item_rows, _backward_hidden):
    refuse_derivative(_backward)
