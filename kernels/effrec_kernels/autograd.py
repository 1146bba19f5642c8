"""The operators of `ops` with their shapes for tracing and their derivatives; use them from here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import ops
from .problem import PROBLEM_SIZE, Problem
from .row_sparse import RowSparse
from .saved import Context, keep, kept, refuse_derivative


def _new(like: Tensor, shape: tuple[Any, ...], wanted: bool, dtype: torch.dtype) -> Tensor:
    return like.new_empty(shape if wanted else (0,), dtype=dtype)


@ops.loss_sum.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    problem, (_, wants_hidden, wants_items) = Problem.of(flat), flat[PROBLEM_SIZE:]
    hidden, items, dtype = problem.hidden, problem.items, problem.accumulate_dtype
    total = hidden.new_empty((), dtype=dtype)
    return (
        total,
        _new(hidden, hidden.shape, wants_hidden, dtype),
        _new(items, items.shape, wants_items, dtype),
    )


@ops.loss_rows.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor]:
    problem = Problem.of(flat)
    rows = problem.hidden.new_empty(problem.hidden.shape[:1], dtype=problem.accumulate_dtype)
    return rows, torch.empty_like(rows)


@ops.loss_rows_backward.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor]:
    problem, (wants_hidden, wants_items) = Problem.of(flat), flat[-2:]
    hidden, items = problem.hidden, problem.items
    return (
        _new(hidden, hidden.shape, wants_hidden, hidden.dtype),
        _new(items, items.shape, wants_items, items.dtype),
    )


@ops.scaled.register_fake
def _(stored: Tensor, scale: Tensor, like: Tensor, beside: Tensor) -> Tensor:
    return stored.new_empty(stored.shape, dtype=like.dtype)


def _keep_gradients(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps what `loss_sum` computed for backward, and the inputs by which a second one is noticed."""
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], output[2], inputs[0], inputs[1])


def _scale_gradients(ctx: Context, of_total: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    of_hidden, of_items, hidden, items = ctx.saved_tensors
    gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
    if of_total is not None:
        pairs = ((of_hidden, hidden, items), (of_items, items, hidden))
        for index, (stored, like, beside) in enumerate(pairs):
            if ctx.needs_input_grad[index]:
                gradients[index] = ops.scaled(stored, of_total, like, beside)
    return tuple(gradients)


def _keep_inputs(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps the inputs of `loss_rows`."""
    ctx.set_materialize_grads(False)
    keep(ctx, inputs)


def _run_backward(ctx: Context, of_loss: Tensor | None, of_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
    if of_loss is None and of_lse is None:
        return tuple(gradients)
    flat, _ = kept(ctx)
    wants = ctx.needs_input_grad[:2]
    given = torch.zeros_like(of_lse) if of_loss is None and of_lse is not None else of_loss
    if Problem.of(flat).sparse and wants[1]:
        of_hidden, rows, values = ops.loss_rows_backward_sparse(*flat, given, of_lse, wants[0])
        computed = of_hidden, RowSparse(rows, values, len(flat[1])).gradient()
    else:
        computed = ops.loss_rows_backward(*flat, given, of_lse, *wants)
    gradients[:2] = [tensor if wanted else None for tensor, wanted in zip(computed, wants, strict=True)]
    return tuple(gradients)


ops.loss_sum.register_autograd(_scale_gradients, setup_context=_keep_gradients)
ops.loss_rows.register_autograd(_run_backward, setup_context=_keep_inputs)
for _backward in (ops.loss_rows_backward, ops.loss_rows_backward_sparse, ops.scaled):
    refuse_derivative(_backward)

loss_sum, loss_rows = ops.loss_sum, ops.loss_rows
