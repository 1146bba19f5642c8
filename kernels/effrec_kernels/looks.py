"""Looks at values inside of tensors, where nothing need be waited for: on a CPU, or when debugging."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from .problem import Problem
from .tensors import INTEGERS, check_tensor


def check_ids(problem: Problem) -> None:
    """Raises IndexError for targets or negatives outside the table, ValueError for a log_q that has no use.

    Always on a CPU; on other devices only with EFFREC_DEBUG=1, for looking at values there waits for them.
    Targets and negatives equal to `ignore_index` are allowed, and so is anything in rows without a target.
    """
    if not _looks_at(problem.targets):
        return
    ignored, num_items = problem.ignore_index, len(problem.items)
    check_targets(problem.targets, ignored, num_items)
    if problem.negatives is not None:
        negatives = problem.negatives
        if problem.sharing == "row":
            negatives = negatives[problem.has_target]
        _check_ids_in_range("negatives", negatives, ignored, num_items)
    if problem.boundaries is not None:
        _check_rising(problem.boundaries, len(problem.targets))
    if problem.log_q is not None:
        _check_log_q(problem, problem.log_q)


def check_targets(targets: Tensor, ignore_index: int, num_items: int) -> None:
    """Raises IndexError unless targets are items or `ignore_index`, as far as `check_ids` would look."""
    if _looks_at(targets):
        _check_ids_in_range("targets", targets, ignore_index, num_items)


def check_numbers(name: str, ids: Tensor, num_items: int) -> None:
    """Raises TypeError or IndexError unless `ids` are items, as far as `check_ids` would look."""
    check_tensor(name, ids)
    if ids.dtype not in INTEGERS:
        raise TypeError(f"{name} must be int32 or int64, not {ids.dtype}")
    if _looks_at(ids):
        _check_ids_in_range(name, ids, None, num_items)


def _looks_at(ids: Tensor) -> bool:
    return ids.device.type == "cpu" or os.environ.get("EFFREC_DEBUG") == "1"


def _check_rising(boundaries: Tensor, num_rows: int) -> None:
    if (boundaries.diff() < 0).any() or boundaries[0] < 0 or boundaries[-1] > num_rows:
        raise IndexError(f"boundaries must rise from 0 or more to {num_rows} rows at most, not {boundaries}")


def _check_ids_in_range(name: str, ids: Tensor, ignored: int | None, num_items: int) -> None:
    if not ids.numel():
        return
    low, high = torch.aminmax(ids)
    if low >= 0 and high < num_items:
        return
    wrong = ids[(ids < 0) | (ids >= num_items)]
    hint = ""
    if ignored is not None:
        wrong = wrong[wrong != ignored]
        hint = f" (only ignore_index, {ignored}, may stand for no item)"
    if wrong.numel():
        raise IndexError(
            f"{name} holds {wrong.numel()} ids outside [0, {num_items}), the first is {int(wrong[0])}{hint}"
        )


def _check_log_q(problem: Problem, log_q: Tensor) -> None:
    """Raises ValueError for NaN, and for -inf at an item that a slot may hold: k would be infinite."""
    low, high = torch.aminmax(log_q)
    if high.isnan():
        raise ValueError("log_q holds NaN")
    if low > -math.inf:
        return
    held = _held(problem)
    never = log_q == -math.inf
    if held is not None:
        never = never.index_select(0, held)
    wrong = never.nonzero().flatten()
    if len(wrong):
        item = int(wrong[0] if held is None else held[wrong[0]])
        raise ValueError(
            f"log_q is -inf at item {item}, as if it were never drawn, but slots hold it: counts must know "
            "it (or smoothing above 0), or make its log_q inf, which leaves it out"
        )


def _held(problem: Problem) -> Tensor | None:
    """Returns items of the table that slots may hold, as far as they are known; None for all."""
    num_items = len(problem.items)
    if problem.negatives is not None:
        ids = problem.negatives.flatten()
    elif problem.sampler != "popularity":
        return None
    else:
        ids = problem.targets if problem.in_batch else problem.targets[:0]
    return ids[(ids >= 0) & (ids < num_items)]
