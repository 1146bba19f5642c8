"""Launches the kernels of packed tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..row_sparse import RowSparse
from .blocks import Blocks
from .device.packed import gather_slots, score_items, unpack_rows
from .launch import Arguments, launch

if TYPE_CHECKING:
    from ..packed import PackedRows

# Slots that a program takes at a time, and the most of them of one row.
_SLOTS = 1024
_WIDTH = 64
# Users and items of a block of scores; users lie in memory a multiple of so many apart.
_USERS = 64
_ITEMS = 32
_APART = 16


def slot_blocks(width: int) -> Blocks:
    """Returns how many rows of so many slots a program takes, and how many slots of each at a time."""
    width = min(_WIDTH, 1 << (max(1, width) - 1).bit_length())
    return Blocks(_SLOTS // width, 1, width, 1, 4)


def score_blocks() -> Blocks:
    """Returns how many users and items a program scores."""
    return Blocks(_USERS, _ITEMS, 1, 1, 4)


def unpack_into(dense: Tensor, packed: PackedRows, rows: Tensor) -> None:
    """Writes the slots of rows [n] into `dense` [n, d], which holds zeros; what is no row becomes NaN."""
    if not len(rows):
        return
    blocks = slot_blocks(_mean_width(packed))
    arguments = _of(packed) | {"rows": rows, "dense": dense, "num_rows": len(rows), "dim": packed.dim}
    launch(unpack_rows, (-(-len(rows) // blocks.rows),), blocks, arguments)


def at_slots(packed: PackedRows, gradient: RowSparse) -> RowSparse:
    """Returns what the dense gradient of some rows is at their slots; as `packed_lookup.at_slots`."""
    rows, upstream = gradient.rows.contiguous(), gradient.values
    slots, starts, width = None, None, packed.columns.shape[-1]
    size = len(rows) * width
    if packed.offsets is not None:
        ends = (packed.offsets.index_select(0, rows + 1) - packed.offsets.index_select(0, rows)).cumsum(0)
        size = int(ends[-1]) if len(rows) else 0
        starts, slots = torch.cat([ends.new_zeros(1), ends[:-1]]), rows.new_empty(size)
    found = upstream.new_empty(size)
    if size:
        blocks = slot_blocks(_mean_width(packed))
        arguments = _of(packed) | {
            "rows": rows, "upstream": upstream, "starts": starts, "found": found, "slots": slots,
            "num_rows": len(rows), "upstream_row": upstream.stride(0), "upstream_step": upstream.stride(1),
        }  # fmt: skip
        launch(gather_slots, (-(-len(rows) // blocks.rows),), blocks, arguments)
    if slots is None:
        return RowSparse(gradient.rows, found.view(len(rows), width), packed.num_rows)
    return RowSparse(slots, found[:, None], packed.live)


def score(hidden: Tensor, packed: PackedRows, first: int, scores: Tensor) -> None:
    """Writes products of users [b, d] with rows of the table from `first` on to `scores` [b, n]."""
    users = hidden.new_zeros(packed.dim, -(-len(hidden) // _APART) * _APART, dtype=torch.float32)
    users[:, : len(hidden)] = hidden.t()
    blocks = score_blocks()
    arguments = _of(packed) | {
        "users": users, "scores": scores, "num_rows": len(hidden), "num_items": scores.shape[1],
        "first_row": first, "users_row": users.stride(0),
    }  # fmt: skip
    grid = (-(-scores.shape[1] // blocks.negatives), -(-len(hidden) // blocks.rows))
    launch(score_items, grid, blocks, arguments)


def _mean_width(packed: PackedRows) -> int:
    return -(-packed.live // max(1, packed.num_rows))


def _of(packed: PackedRows) -> Arguments:
    """Returns what kernels take of a table; `items` says which device to launch on."""
    return {
        "items": packed.values, "values": packed.values.contiguous(), "columns": packed.columns.contiguous(),
        "offsets": packed.offsets, "factors": packed.scale, "num_items": packed.num_rows,
        "width": packed.columns.shape[-1] if packed.offsets is None else 0,
    }  # fmt: skip
