"""From a problem to kernel launches: sizes, strides and options as the kernels take them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from ..groups import first_tile, num_groups
from ..problem import RUN, Problem, num_runs
from ..rng import ONE_WORD_ITEMS
from .blocks import Blocks, positive_blocks, row_blocks, tile_blocks
from .device.positives import hidden_backward
from .device.rows import rows_forward
from .device.tiles import tiles_forward

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What forward gives.

    Attributes:
        loss: float32 [M].
        lse: float32 [M], log-sum-exp of logits.
        shift: float32 [M], log-sum-exp less the correction k.
        unit: [M, D] in the dtype of the hidden states, gradient of each loss by its row, or None.
    """

    loss: Tensor
    lse: Tensor
    shift: Tensor
    unit: Tensor | None


def forward(problem: Problem, wants_unit: bool) -> Results:
    """Returns losses, and with `wants_unit` their gradients by hidden states, gathered in the same pass."""
    hidden = problem.hidden
    # Rows outside any sequence are no program's: their zeros are written here.
    new = torch.zeros if problem.sharing == "sequence" else torch.empty
    loss, lse, shift = (new(len(hidden), dtype=torch.float32, device=hidden.device) for _ in range(3))
    unit = new(hidden.shape, dtype=hidden.dtype, device=hidden.device) if wants_unit else None
    arguments = arguments_of(problem) | {"loss": loss, "lse": lse, "shift": shift, "unit": unit}
    if len(hidden) and is_by_row(problem):
        blocks = row_blocks(hidden.shape[1])
        launch(rows_forward, (len(hidden), blocks.chunks), blocks, arguments)
    elif len(hidden):
        tiling = tiling_of(problem)
        arguments |= tiling.layout | {"SPLIT": is_finer(hidden, problem), "lanes": tiling.lanes}
        grid = (tiling.groups * tiling.lanes, tiling.blocks.chunks)
        launch(tiles_forward, grid, tiling.blocks, arguments)
    return Results(loss, lse, shift, unit)


def backward_hidden(problem: Problem, unit: Tensor, of_loss: Tensor, of_lse: Tensor | None) -> Tensor:
    """Returns the gradient by hidden states [M, D] in their dtype, from what forward gathered."""
    hidden = problem.hidden
    of_hidden = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    if len(hidden):
        arguments = arguments_of(problem) | {"unit": unit, "of_hidden": of_hidden}
        arguments |= {"of_loss": of_loss, "of_lse": of_lse}
        blocks = positive_blocks(hidden.shape[1])
        launch(hidden_backward, (-(-len(hidden) // blocks.rows), blocks.chunks), blocks, arguments)
    return of_hidden


def is_by_row(problem: Problem) -> bool:
    """Returns whether each row has negatives of its own; the full softmax is one set for all rows."""
    return problem.sharing == "row" and problem.num_negatives > 0


def launch(kernel: Any, grid: tuple[int, ...], blocks: Blocks, arguments: Arguments) -> None:
    """Launches a kernel, on the device of the items, with those of the arguments that it names."""
    known = arguments | {
        "BLOCK_M": blocks.rows, "BLOCK_N": blocks.negatives, "BLOCK_D": blocks.width, "CHUNKS": blocks.chunks
    }  # fmt: skip
    named = {name: known[name] for name in kernel.arg_names}
    # Said, since versions of Triton differ in what is fused where nothing is.
    options = {"num_warps": blocks.num_warps, "num_stages": blocks.num_stages, "enable_fp_fusion": True}
    with torch.cuda.device_of(arguments["items"]):
        kernel[grid](**named, **options)


def is_finer(tensor: Tensor, problem: Problem) -> bool:
    """Returns whether a gradient in the tensor's dtype holds more digits than 16-bit products give it."""
    return tensor.dtype.itemsize > problem.compute_dtype.itemsize


def arguments_of(problem: Problem) -> Arguments:
    """Returns what kernels take of a problem, sizes of blocks apart."""
    full = problem.num_negatives == 0
    given, items = problem.negatives, len(problem.items)
    drawn_from = num_runs(items) if problem.sampler == "block" else items
    compute = DTYPES[problem.compute_dtype]
    vectors = {
        "targets": problem.targets, "rows": problem.rows, "boundaries": problem.boundaries,
        "state": problem.state, "thresholds": problem.thresholds, "alias": problem.alias,
    }  # fmt: skip
    return {name: _dense(vector) for name, vector in vectors.items()} | {
        "hidden": problem.hidden, "items": problem.items, "negatives": given,
        "row_start": problem.row_start, "num_rows": len(problem.hidden), "dim": problem.hidden.shape[1],
        "num_negatives": items if full else problem.num_negatives, "num_items": items,
        "in_batch": problem.in_batch or None, "ignore_index": problem.ignore_index,
        "scale": 1 / problem.temperature, "beta": problem.beta,
        "hidden_row": problem.hidden.stride(0), "hidden_step": problem.hidden.stride(1),
        "items_row": problem.items.stride(0), "items_step": problem.items.stride(1),
        "negatives_row": 0 if given is None else given.stride(0),
        "negatives_step": 0 if given is None else given.stride(1),
        "SAMPLER": "all" if full else "given" if given is not None else problem.sampler,
        "BINARY": problem.objective == "binary", "RUN": RUN, "TWO_WORDS": drawn_from > ONE_WORD_ITEMS,
        "COMPUTE": compute, "OPERAND": tl.float32 if is_interpreted() else compute, "PRECISION": _precision(),
    } | _corrections(problem)  # fmt: skip


def _dense(vector: Tensor | None) -> Tensor | None:
    """Returns numbers one after the other, as kernels read them: a column of a matrix is copied."""
    return None if vector is None else vector.contiguous()


def _corrections(problem: Problem) -> Arguments:
    """Returns how k comes to the logits: from the row's count of usable ids, by item, or as one number."""
    log_others = math.log(max(len(problem.items) - 1, 1))
    draws = math.log(max(problem.num_negatives, 1))
    by_item = _dense(problem.log_q) if problem.correction == "logq" else None
    constant = {
        "none": 0.0,
        "exact": 0.0,
        "constant": log_others - math.log(problem.num_negatives + 1),
        "logq": -draws - (problem.flat_log_q if by_item is None else 0.0),
    }[problem.correction]
    exact = problem.correction == "exact" and problem.objective == "softmax"
    return {"log_q": by_item, "constant": constant, "log_others": log_others, "EXACT": exact}


@dataclass(frozen=True)
class Tiling:
    """How the tile kernels take rows that share negatives.

    Attributes:
        blocks: what a program takes at a time.
        groups: how many groups there are; programs of those without rows end at once.
        lanes: blocks of rows that make up the largest group; of sequences, one of twice the mean length.
        layout: what kernels are told of where a group's rows lie.
    """

    blocks: Blocks
    groups: int
    lanes: int
    layout: Arguments


def tiling_of(problem: Problem) -> Tiling:
    """Returns how the tile kernels take this problem's rows; in the full softmax they are one group."""
    groups = 1 if problem.num_negatives == 0 else num_groups(problem)
    largest = len(problem.hidden)
    layout: Arguments = {"LAYOUT": "batch", "first_group": 0, "tile": 1, "stride": 1}
    if problem.sharing == "tile":
        tile, stride = problem.tile_rows, problem.tile_stride
        first = first_tile(problem.row_start, tile, stride)
        layout = {"LAYOUT": "tiles", "first_group": first, "tile": tile, "stride": stride}
        largest = min(tile, largest)
    elif problem.sharing == "sequence":
        # The device alone knows how long each sequence is; the lanes of a longer one take several blocks.
        layout["LAYOUT"] = "spans"
        largest = max(1, 2 * largest // groups)
    blocks = _blocks_of_tiles(problem, largest)
    return Tiling(blocks, groups, -(-largest // blocks.rows), layout)


def _blocks_of_tiles(problem: Problem, group_rows: int) -> Blocks:
    dim, device = problem.hidden.shape[1], problem.hidden.device
    capability = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
    return tile_blocks(dim, problem.compute_dtype, problem.items.dtype, group_rows, capability)


def _precision() -> str:
    """Returns how float32 products are made: in float32, unless PyTorch is told that TF32 will do."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def is_interpreted() -> bool:
    """Returns whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were imported)."""
    return isinstance(rows_forward, InterpretedFunction)
