"""Softmax cross-entropy over every item, a chunk of logits alive at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .arguments import Form, Frame, full_problem
from .checks import check_reduction
from .evaluate import Reduction, evaluate


def linear_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    return_lse: bool = False,
    deterministic: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Any:
    """Returns `F.cross_entropy(hidden @ items.T / temperature, targets)` without [M, V] logits in any pass.

    Args:
        hidden: [M, D], float16, bfloat16, float32 or float64.
        items: [V, D].
        targets: int [M] in [0, V), or `ignore_index`.
        temperature: divides the logits.
        row_weights: [M], multiplies rows' losses.
        ignore_index: marks rows without loss, whatever their state holds.
        reduction: `mean` over rows with a target (0 if there are none), `sum` or `none` for [M].
        normalizer: divides the sum in place of the count.
        return_lse: return (loss, log-sum-exp [M]) instead, both differentiable.
        deterministic: the same bits in every run, whatever it costs.
        chunk_bytes: bound on the bytes of logits alive at a time; None suits the device.
        kernel: `auto`, `torch`, `reference` or `triton`.

    Returns:
        float32 (float64 for float64 inputs): a number, or [M] for `none`.

    Raises:
        ValueError, TypeError, IndexError, KernelUnavailable, RuntimeError: as `sampled_cross_entropy`.
    """
    check_reduction(reduction, normalizer)
    frame = Frame(row_weights, ignore_index, chunk_bytes, kernel, deterministic)
    problem = full_problem(hidden, items, targets, Form(temperature=temperature), frame)
    return evaluate(problem, Reduction(reduction, row_weights, normalizer), return_lse)
