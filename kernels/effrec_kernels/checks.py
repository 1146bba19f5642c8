"""Complaints about arguments, before anything is computed or read."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .problem import Problem
from .rng import MASK, MAX_ITEMS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)
REDUCTIONS = ("mean", "sum", "none")


def check_tensors(hidden: Tensor, items: Tensor, targets: Tensor, row_weights: Tensor | None) -> None:
    """Raises ValueError or TypeError where shapes, dtypes or devices do not fit together."""
    if hidden.dim() != 2 or items.dim() != 2 or hidden.shape[1] != items.shape[1]:
        raise ValueError(
            f"hidden must be [M, D] and items [V, D] with the same D, not {_shape(hidden)} and "
            f"{_shape(items)}; flatten sequences to rows first"
        )
    if not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(f"items must have between 1 and 2^31 - 1 rows, not {len(items)}")
    _check_per_row("targets", targets, hidden)
    if row_weights is not None:
        _check_per_row("row_weights", row_weights, hidden)
    for name, tensor in (("hidden", hidden), ("items", items)):
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, not {tensor.dtype}")
    if targets.dtype not in INTEGERS:
        raise TypeError(f"targets must be int32 or int64, not {targets.dtype}")
    for name, tensor in (("items", items), ("targets", targets)):
        if tensor.device != hidden.device:
            raise ValueError(f"{name} is on {tensor.device}, hidden on {hidden.device}")


def check_negatives(hidden: Tensor, negatives: Tensor | None, num_negatives: int | None) -> int:
    """Returns N, the number of negatives of a row; raises where none or two ways to have them are given."""
    if (negatives is None) == (num_negatives is None):
        raise ValueError("give either num_negatives (drawn) or negatives (ids), and not both")
    if negatives is None:
        assert num_negatives is not None
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {num_negatives}")
        return num_negatives
    if negatives.dim() != 2 or len(negatives) != len(hidden) or negatives.shape[1] < 1:
        raise ValueError(f"negatives must be [M, N] with M = {len(hidden)}, not {_shape(negatives)}")
    if negatives.dtype not in INTEGERS:
        raise TypeError(f"negatives must be int32 or int64, not {negatives.dtype}")
    return negatives.shape[1]


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not '{value}'")


def check_key(seed: int, step: int) -> None:
    """Raises ValueError for a seed or step that the generator's key and counter cannot hold."""
    if not -(1 << 63) <= seed < 1 << 63:
        raise ValueError(f"seed must fit a signed 64-bit integer, not {seed}")
    if not 0 <= step <= MASK:
        raise ValueError(f"step must be in [0, 2^32), not {step}")


def check_reduction(reduction: str, normalizer: object) -> None:
    """Raises ValueError for an unknown reduction, or a normaliser where nothing is summed."""
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "none" and normalizer is not None:
        raise ValueError("normalizer divides a sum; with reduction='none' divide the result yourself")


def check_ids(problem: Problem) -> None:
    """Raises IndexError for targets or negatives outside the table.

    Always on a CPU; on other devices only with EFFREC_DEBUG=1, for looking at values there waits for them.
    Targets and negatives equal to `ignore_index` are allowed, and so is anything in rows without a target.
    """
    if problem.targets.device.type != "cpu" and os.environ.get("EFFREC_DEBUG") != "1":
        return
    ignored, num_items = problem.ignore_index, len(problem.items)
    _check_ids_in_range("targets", problem.targets, ignored, num_items)
    if problem.negatives is not None:
        of_valid_rows = problem.negatives[problem.targets != ignored]
        _check_ids_in_range("negatives", of_valid_rows, ignored, num_items)


def _check_ids_in_range(name: str, ids: Tensor, ignored: int, num_items: int) -> None:
    if not ids.numel():
        return
    low, high = torch.aminmax(ids)
    if low >= 0 and high < num_items:
        return
    wrong = ids[(ids != ignored) & ((ids < 0) | (ids >= num_items))]
    if wrong.numel():
        raise IndexError(
            f"{name} holds {wrong.numel()} ids outside [0, {num_items}), the first is {int(wrong[0])} "
            f"(only ignore_index, {ignored}, may stand for no item)"
        )


def _check_per_row(name: str, tensor: Tensor, hidden: Tensor) -> None:
    if tensor.shape != hidden.shape[:1]:
        raise ValueError(f"{name} must be [M] with M = {len(hidden)}, not {_shape(tensor)}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
