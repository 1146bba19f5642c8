"""Complaints about arguments, before anything is computed or read."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from .popularity import Popularity
from .problem import RUN, SAMPLERS, Problem
from .rng import MAX_ITEMS
from .tensors import FLOATS, INTEGERS, check_tensor, shape
from .values import LOWEST, is_whole, not_negative, one_of, real_number, shown, whole_number

REDUCTIONS = ("mean", "sum", "none")
ROW_OR_BATCH = ("row", "batch")
# Rows of a tile, and their distance: the product fits 64 bits.
MAX_TILE = (1 << 31) - 1


def check_tensors(hidden: Tensor, items: Tensor, targets: Tensor, row_weights: Tensor | None) -> None:
    """Raises ValueError or TypeError where shapes, dtypes or devices do not fit together."""
    check_plain("hidden", hidden)
    check_plain("items", items)
    check_tensor("targets", targets)
    if hidden.dim() != 2 or items.dim() != 2 or not hidden.shape[1] == items.shape[1] >= 1:
        raise ValueError(
            f"hidden must be [M, D] and items [V, D] with the same D of 1 or more, not {shape(hidden)} and "
            f"{shape(items)}; flatten sequences to rows first"
        )
    if not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(f"items must have between 1 and 2^31 - 1 rows, not {len(items)}")
    _check_per_row("targets", targets, hidden)
    check_row_weights(row_weights, hidden)
    for name, tensor in (("hidden", hidden), ("items", items)):
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, not {tensor.dtype}")
    if targets.dtype not in INTEGERS:
        raise TypeError(f"targets must be int32 or int64, not {targets.dtype}")
    check_beside("items", items, hidden)
    check_beside("targets", targets, hidden)


def check_beside(name: str, tensor: Tensor, hidden: Tensor) -> None:
    """Raises ValueError unless a tensor is on the device of the hidden states."""
    if tensor.device != hidden.device:
        raise ValueError(f"{name} is on {tensor.device}, hidden on {hidden.device}")


def check_row_weights(row_weights: Tensor | None, hidden: Tensor) -> None:
    """Raises TypeError or ValueError unless `row_weights` are a real number for each row, or None."""
    if row_weights is None:
        return
    check_tensor("row_weights", row_weights)
    _check_per_row("row_weights", row_weights, hidden)
    if row_weights.is_complex():
        raise TypeError(f"row_weights must be real numbers, not {row_weights.dtype}")
    check_beside("row_weights", row_weights, hidden)


def check_no_forward_mode(problem: Problem) -> None:
    """Raises RuntimeError under forward-mode differentiation, which would find derivatives of zero."""
    if any(unpack_dual(one).tangent is not None for one in (problem.hidden, problem.items)):
        raise RuntimeError(
            "the losses of effrec_kernels have no forward-mode derivative; kernel='reference' has one, and "
            "so has sampled_cross_entropy_dense"
        )


def check_plain(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless `tensor` is one that kernels can read: dense, and all of it on this rank."""
    check_tensor(name, tensor)
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, not {tensor.layout}")
    module = sys.modules.get("torch.distributed.tensor")
    if module is not None and isinstance(tensor, module.DTensor):
        raise TypeError(
            f"{name} is a DTensor, spread over ranks. Under FSDP compute the loss in the forward of the "
            "module that holds the table, where it is whole. To train a table that no GPU holds, give each "
            "rank its rows (to_local()) and call effrec_kernels.vocab_parallel_cross_entropy"
        )


def check_negatives(
    negatives: Tensor | None,
    num_negatives: int | None,
    in_batch: int,
    name: str = "M",
    sets: int | None = None,
) -> int:
    """Returns N, the number of negatives of a row; raises where none or two ways to have them are given.

    `sets` is how many sets of negatives there must be, and `name` what that number is called.
    """
    if (negatives is None) == (num_negatives is None):
        raise ValueError("give either num_negatives (drawn) or negatives (ids), and not both")
    in_batch = whole_number("in_batch", in_batch)
    if negatives is None:
        number = whole_number("num_negatives", num_negatives, 1)
        if not 0 <= in_batch <= number:
            raise ValueError(f"in_batch must be from 0 to num_negatives = {number}, not {in_batch}")
        return number
    check_tensor("negatives", negatives)
    if in_batch:
        raise ValueError("in_batch is a share of drawn negatives; given ones hold what they hold")
    if negatives.dim() != 2 or negatives.shape[1] < 1 or (sets is not None and len(negatives) != sets):
        raise ValueError(f"negatives must be [{name}, N] with {name} = {sets}, not {shape(negatives)}")
    if negatives.dtype not in INTEGERS:
        raise TypeError(f"negatives must be int32 or int64, not {negatives.dtype}")
    return negatives.shape[1]


def check_sampler(sampler: str | Popularity, items: Tensor) -> str:
    """Returns the sampler's name; raises where there is no such, or its table is of another catalogue."""
    if not isinstance(sampler, Popularity):
        if sampler == "popularity":
            raise ValueError(
                "sampler 'popularity' needs its table: sampler=effrec_kernels.popularity(counts)"
            )
        one_of("sampler", sampler, SAMPLERS)
        return sampler
    table = sampler.alias
    if len(table) != len(items) or table.device != items.device:
        raise ValueError(
            f"the sampler draws from {len(table)} items on {table.device}, but items are {len(items)} on "
            f"{items.device}; see popularity(...).to(device)"
        )
    return "popularity"


def check_sharing(
    sharing: str | int | Tensor, stride: int, hidden: Tensor, row_offset: int | Tensor
) -> tuple[int, int]:
    """Returns a tile's rows and their distance, 1 and 1 where there are no tiles.

    Raises ValueError or TypeError unless `sharing` and its stride say which rows share negatives.
    """
    apart = whole_number("sharing_stride", stride, 1, MAX_TILE)
    tiles = is_whole(sharing)
    if apart != 1 and not tiles:
        raise ValueError("sharing_stride is the distance of a tile's rows: sharing must be their number")
    if tiles:
        return whole_number("sharing", sharing, 1, MAX_TILE), apart
    if isinstance(sharing, Tensor):
        _check_boundaries(sharing, hidden, row_offset)
    elif not isinstance(sharing, str) or sharing not in ROW_OR_BATCH:
        raise ValueError(
            "sharing must be 'row', 'batch', a number of rows or a tensor of boundaries, not "
            f"{shown(sharing, ROW_OR_BATCH)}"
        )
    return 1, 1


def check_row_offset(row_offset: int | Tensor, hidden: Tensor) -> int:
    """Returns the number of the first row, 0 where each has its own.

    Raises ValueError or TypeError unless rows are numbered from a number on, or each has one.
    """
    if not isinstance(row_offset, Tensor):
        return whole_number("row_offset", row_offset, LOWEST, (1 << 63) - 1 - len(hidden))
    if row_offset.shape != hidden.shape[:1] or row_offset.dtype != torch.int64:
        raise ValueError(
            f"row_offset must be a number or int64 [M] with M = {len(hidden)}, not {row_offset.dtype} "
            f"{shape(row_offset)}"
        )
    check_beside("row_offset", row_offset, hidden)
    return 0


def check_sparse(items: Tensor, sharing: str, tile_rows: int, rows: Tensor | None, kernel: str) -> None:
    """Raises ValueError unless a sparse gradient has rows fewer than M N, their number known, and a leaf."""
    if sharing == "row" or (sharing == "tile" and tile_rows == 1):
        raise ValueError(
            "sparse=True wants negatives that rows share (sharing a number of 2 or more, boundaries or "
            "'batch'): where each row draws its own, the gradient would hold M N rows"
        )
    if rows is not None and sharing == "tile":
        raise ValueError("sparse=True counts tiles from the first row: row_offset must be a number")
    if kernel == "reference":
        raise ValueError("sparse=True is of the kernels triton and torch; the reference's gradient is dense")
    if items.requires_grad and not items.is_leaf:
        raise ValueError(
            "sparse=True wants items to be a parameter itself: a sparse gradient does not pass through a "
            "slice of one, or what else items were made by"
        )


def _check_boundaries(boundaries: Tensor, hidden: Tensor, row_offset: int | Tensor) -> None:
    if isinstance(row_offset, Tensor):
        raise ValueError("with boundaries rows are counted from the first: row_offset must be a number")
    least = 2 if len(hidden) else 1
    if boundaries.dim() != 1 or len(boundaries) < least or boundaries.dtype not in INTEGERS:
        raise ValueError(
            f"boundaries must be int [G + 1], first rows of the sequences and the last one's end, not "
            f"{boundaries.dtype} {shape(boundaries)}"
        )
    check_beside("boundaries", boundaries, hidden)


def check_log_q(log_q: Tensor | None, items: Tensor, correction: str) -> None:
    """Raises ValueError or TypeError unless `log_q` is a float for each item, and used."""
    if log_q is None:
        return
    check_tensor("log_q", log_q)
    if correction != "logq":
        raise ValueError(f"log_q is used by correction='logq', not by '{correction}'")
    if log_q.shape != items.shape[:1] or log_q.device != items.device:
        raise ValueError(f"log_q must be [V] with V = {len(items)} on {items.device}, not {shape(log_q)}")
    if log_q.dtype not in FLOATS:
        raise TypeError(f"log_q must be a float tensor, not {log_q.dtype}")
    if log_q.requires_grad:
        raise TypeError("log_q is a constant and would not be trained: give log_q.detach()")


def check_runs(num_negatives: int, in_batch: int) -> None:
    """Raises ValueError unless all runs of the block sampler are whole, as its law supposes."""
    if num_negatives % RUN or in_batch % RUN:
        raise ValueError(
            f"sampler='block' with correction='logq' wants whole runs, num_negatives and in_batch multiples "
            f"of {RUN}, not {num_negatives} and {in_batch}: the first ids of a run in part come more often"
        )


def check_temperature(temperature: float) -> float:
    """Returns the temperature; raises ValueError or TypeError unless logits can be divided by it."""
    if isinstance(temperature, Tensor):
        raise TypeError(
            "temperature must be a number: a tensor would not be trained; divide hidden by it instead"
        )
    number = real_number("temperature", temperature)
    if not 0 < number < math.inf:
        raise ValueError(f"temperature must be positive, not {temperature}")
    return number


def check_state(state: Tensor, hidden: Tensor, seed: int, step: int) -> None:
    """Raises ValueError or TypeError unless `state` alone is the generator's key."""
    check_tensor("rng_state", state)
    if (seed, step) != (0, 0):
        raise ValueError("give either rng_state or seed and step, and not both")
    if state.shape != (2,) or state.dtype != torch.int64 or state.device != hidden.device:
        raise ValueError(
            f"rng_state must be int64 [2] (seed, step) on {hidden.device}, not {state.dtype} {shape(state)} "
            f"on {state.device}"
        )


def check_reduction(reduction: str, normalizer: object) -> None:
    """Raises ValueError or TypeError for an unknown reduction, or a normaliser that does not divide a sum."""
    one_of("reduction", reduction, REDUCTIONS)
    if normalizer is None:
        return
    if reduction == "none":
        raise ValueError("normalizer divides a sum; with reduction='none' divide the result yourself")
    if not isinstance(normalizer, Tensor):
        not_negative("normalizer", normalizer)
    elif normalizer.dim() or normalizer.is_complex():
        raise ValueError(
            f"normalizer must be a number, or a tensor of no dimensions, not {normalizer.dtype} "
            f"{shape(normalizer)}"
        )


def check_table(name: str, items: Tensor) -> None:
    """Raises TypeError or ValueError unless `items` is a table of rows."""
    check_plain(name, items)
    if items.dim() != 2 or len(items) < 1 or items.dtype not in FLOATS:
        raise ValueError(f"{name} must be float [V, D] with V of 1 or more, not {items.dtype} {shape(items)}")


def _check_per_row(name: str, tensor: Tensor, hidden: Tensor) -> None:
    if tensor.shape != hidden.shape[:1]:
        raise ValueError(f"{name} must be [M] with M = {len(hidden)}, not {shape(tensor)}")
