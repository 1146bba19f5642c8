"""Complaints about arguments, before anything is computed or read."""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor

from .popularity import Popularity
from .problem import SAMPLERS, Problem
from .rng import MASK, MAX_ITEMS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)
REDUCTIONS = ("mean", "sum", "none")


def check_tensors(hidden: Tensor, items: Tensor, targets: Tensor, row_weights: Tensor | None) -> None:
    """Raises ValueError or TypeError where shapes, dtypes or devices do not fit together."""
    check_plain("hidden", hidden)
    check_plain("items", items)
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


def check_plain(name: str, tensor: Tensor) -> None:
    """Raises TypeError for a DTensor: kernels read a tensor's own memory, of which a rank has a part."""
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
    if negatives is None:
        assert num_negatives is not None
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {num_negatives}")
        if not 0 <= in_batch <= num_negatives:
            raise ValueError(f"in_batch must be from 0 to num_negatives = {num_negatives}, not {in_batch}")
        return num_negatives
    if in_batch:
        raise ValueError("in_batch is a share of drawn negatives; given ones hold what they hold")
    if negatives.dim() != 2 or negatives.shape[1] < 1 or (sets is not None and len(negatives) != sets):
        raise ValueError(f"negatives must be [{name}, N] with {name} = {sets}, not {_shape(negatives)}")
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
        check_choice("sampler", sampler, SAMPLERS)
        return sampler
    table = sampler.alias
    if len(table) != len(items) or table.device != items.device:
        raise ValueError(
            f"the sampler draws from {len(table)} items on {table.device}, but items are {len(items)} on "
            f"{items.device}; see popularity(...).to(device)"
        )
    return "popularity"


def check_sharing(sharing: str | int | Tensor, stride: int, hidden: Tensor, row_offset: int | Tensor) -> None:
    """Raises ValueError unless `sharing` and its stride say which rows share negatives."""
    tiles = isinstance(sharing, int) and not isinstance(sharing, bool)
    if stride != 1 and not tiles:
        raise ValueError("sharing_stride is the distance of a tile's rows: sharing must be their number")
    if isinstance(sharing, Tensor):
        _check_boundaries(sharing, hidden, row_offset)
    elif tiles:
        assert isinstance(sharing, int)
        if sharing < 1 or stride < 1:
            raise ValueError(f"sharing and sharing_stride must be at least 1, not {sharing} and {stride}")
    elif sharing not in ("row", "batch"):
        raise ValueError(
            f"sharing must be 'row', 'batch', a number of rows or a tensor of boundaries, not {sharing!r}"
        )


def check_row_offset(row_offset: int | Tensor, hidden: Tensor) -> None:
    """Raises ValueError unless rows are numbered from a number on, or each has one."""
    if isinstance(row_offset, Tensor) and (
        row_offset.shape != hidden.shape[:1] or row_offset.dtype != torch.int64
    ):
        raise ValueError(f"row_offset must be a number or int64 [M] with M = {len(hidden)}")


def check_sparse(sharing: str | int | Tensor, rows: Tensor | None, kernel: str) -> None:
    """Raises ValueError unless the rows of a sparse gradient are fewer than M N, and their number known."""
    if isinstance(sharing, (str, int)) and sharing in ("row", 1):
        raise ValueError(
            "sparse=True wants negatives that rows share (sharing a number of 2 or more, boundaries or "
            "'batch'): where each row draws its own, the gradient would hold M N rows"
        )
    if rows is not None and isinstance(sharing, int):
        raise ValueError("sparse=True counts tiles from the first row: row_offset must be a number")
    if kernel == "reference":
        raise ValueError("sparse=True is of the kernels triton and torch; the reference's gradient is dense")


def _check_boundaries(boundaries: Tensor, hidden: Tensor, row_offset: int | Tensor) -> None:
    if isinstance(row_offset, Tensor):
        raise ValueError("with boundaries rows are counted from the first: row_offset must be a number")
    least = 2 if len(hidden) else 1
    if boundaries.dim() != 1 or len(boundaries) < least or boundaries.dtype not in INTEGERS:
        raise ValueError(
            f"boundaries must be int [G + 1], first rows of the sequences and the last one's end, not "
            f"{boundaries.dtype} {_shape(boundaries)}"
        )
    if boundaries.device != hidden.device:
        raise ValueError(f"boundaries are on {boundaries.device}, hidden on {hidden.device}")


def check_log_q(log_q: Tensor | None, items: Tensor, correction: str) -> None:
    """Raises ValueError or TypeError unless `log_q` is a float for each item, and used."""
    if log_q is None:
        return
    if correction != "logq":
        raise ValueError(f"log_q is used by correction='logq', not by '{correction}'")
    if log_q.shape != items.shape[:1] or log_q.device != items.device:
        raise ValueError(f"log_q must be [V] with V = {len(items)} on {items.device}, not {_shape(log_q)}")
    if log_q.dtype not in FLOATS:
        raise TypeError(f"log_q must be a float tensor, not {log_q.dtype}")


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless logits can be divided by it."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive, not {temperature}")


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


def check_state(state: Tensor, hidden: Tensor, seed: int, step: int) -> None:
    """Raises ValueError unless `state` alone is the generator's key."""
    if seed or step:
        raise ValueError("give either rng_state or seed and step, and not both")
    if state.shape != (2,) or state.dtype != torch.int64 or state.device != hidden.device:
        raise ValueError(
            f"rng_state must be int64 [2] (seed, step) on {hidden.device}, not {state.dtype} {_shape(state)} "
            f"on {state.device}"
        )


def check_reduction(reduction: str, normalizer: object) -> None:
    """Raises ValueError for an unknown reduction, or a normaliser where nothing is summed."""
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "none" and normalizer is not None:
        raise ValueError("normalizer divides a sum; with reduction='none' divide the result yourself")


def check_ids(problem: Problem) -> None:
    """Raises IndexError for targets or negatives outside the table.

    Always on a CPU; on other devices only with EFFREC_DEBUG=1, for looking at values there waits for them.
    Targets and negatives equal to `ignore_index` are allowed, and so is anything in rows without a target.
    Of a slice of the catalogue nothing is looked at: its numbers come from a problem that was.
    """
    if problem.objective == "apart" or not _looks_at(problem.targets):
        return
    ignored, num_items = problem.ignore_index, len(problem.items)
    _check_ids_in_range("targets", problem.targets, ignored, num_items)
    if problem.negatives is not None:
        negatives = problem.negatives
        if problem.sharing == "row":
            negatives = negatives[problem.targets != ignored]
        _check_ids_in_range("negatives", negatives, ignored, num_items)
    if problem.boundaries is not None:
        _check_rising(problem.boundaries, len(problem.targets))


def check_numbers(name: str, ids: Tensor, num_items: int) -> None:
    """Raises TypeError or IndexError unless `ids` are items, as far as `check_ids` would look."""
    if ids.dtype not in INTEGERS:
        raise TypeError(f"{name} must be int32 or int64, not {ids.dtype}")
    if _looks_at(ids):
        _check_ids_in_range(name, ids, 0, num_items)


def check_table(name: str, items: Tensor) -> None:
    """Raises TypeError or ValueError unless `items` is a table of rows."""
    check_plain(name, items)
    if items.dim() != 2 or len(items) < 1 or items.dtype not in FLOATS:
        raise ValueError(
            f"{name} must be float [V, D] with V of 1 or more, not {items.dtype} {_shape(items)}"
        )


def _looks_at(ids: Tensor) -> bool:
    return ids.device.type == "cpu" or os.environ.get("EFFREC_DEBUG") == "1"


def _check_rising(boundaries: Tensor, num_rows: int) -> None:
    if (boundaries.diff() < 0).any() or boundaries[0] < 0 or boundaries[-1] > num_rows:
        raise IndexError(f"boundaries must rise from 0 or more to {num_rows} rows at most, not {boundaries}")


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
