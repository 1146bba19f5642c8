"""What callers pass, checked and made a `Problem`."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_choice, check_key, check_negatives, check_tensors
from .chunks import default_chunk_bytes
from .problem import CORRECTIONS, Problem


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """Returns the dtype operands are rounded to: autocast's where it is on, else that of `hidden`."""
    device = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def global_rows(hidden: Tensor, row_offset: int | Tensor) -> Tensor:
    """Returns int64 [M]: `row_offset` itself if it is a tensor, else the rows counted from it."""
    if isinstance(row_offset, Tensor):
        if row_offset.shape != hidden.shape[:1] or row_offset.dtype != torch.int64:
            raise ValueError(f"row_offset must be a number or int64 [M] with M = {len(hidden)}")
        return row_offset
    return torch.arange(len(hidden), device=hidden.device) + row_offset


def full_problem(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    row_weights: Tensor | None,
    ignore_index: int,
    chunk_bytes: int | None,
) -> Problem:
    """Returns the problem of a softmax over every item, its arguments checked."""
    check_tensors(hidden, items, targets, row_weights)
    return Problem(
        hidden=hidden,
        items=items,
        targets=targets.long(),
        rows=targets.new_empty(0, dtype=torch.int64),
        negatives=None,
        num_negatives=0,
        seed=0,
        step=0,
        objective="softmax",
        correction="none",
        beta=1.0,
        ignore_index=ignore_index,
        chunk_bytes=_chunk_bytes(chunk_bytes, hidden),
        compute_dtype=compute_dtype(hidden),
    )


def sampled_problem(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_negatives: int | None,
    negatives: Tensor | None,
    seed: int,
    step: int,
    row_offset: int | Tensor,
    row_weights: Tensor | None,
    ignore_index: int,
    chunk_bytes: int | None,
    objective: str = "softmax",
    correction: str = "none",
    beta: float = 1.0,
) -> Problem:
    """Returns the problem of each row against its own negatives, its arguments checked."""
    check_tensors(hidden, items, targets, row_weights)
    number = check_negatives(hidden, negatives, num_negatives)
    check_key(seed, step)
    check_choice("correction", correction, CORRECTIONS)
    rows = global_rows(hidden, row_offset)
    return Problem(
        hidden=hidden,
        items=items,
        targets=targets.long(),
        rows=rows,
        negatives=negatives,
        num_negatives=number,
        seed=seed,
        step=step,
        objective=objective,
        correction=correction,
        beta=beta,
        ignore_index=ignore_index,
        chunk_bytes=_chunk_bytes(chunk_bytes, hidden),
        compute_dtype=compute_dtype(hidden),
    )


def _chunk_bytes(given: int | None, hidden: Tensor) -> int:
    if given is not None and given < 1:
        raise ValueError(f"chunk_bytes must be positive, not {given}")
    return given or default_chunk_bytes(hidden.device)
