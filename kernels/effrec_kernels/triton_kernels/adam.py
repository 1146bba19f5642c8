"""Launches the row-wise Adam."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from ..row_sparse import RowSparse
from .blocks import Blocks
from .device.adam import move_rows
from .launch import launch

if TYPE_CHECKING:
    from ..row_adam import AdamRule, Moments

# Values that a program moves at a time, and the widest part of a row.
_VALUES = 1024
_WIDTH = 256


def adam_blocks(dim: int) -> Blocks:
    """Returns how many rows of width D a program moves, and in pieces of what width."""
    width = min(_WIDTH, 1 << (dim - 1).bit_length())
    return Blocks(_VALUES // width, 1, width, -(-dim // width), 4)


def adam_rows(
    table: Tensor,
    moments: Moments,
    gradient: RowSparse,
    rule: AdamRule,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Moves the rows of a gradient, in place; arguments as of `adam_rows_`, the table float32."""
    blocks = adam_blocks(table.shape[1])
    exp_avg, exp_avg_sq = moments.exp_avg, moments.exp_avg_sq
    alike = [exp_avg_sq, moments.row_steps] if moments.slot_steps else [exp_avg_sq]
    if any(exp_avg.stride() != other.stride() for other in alike):
        raise ValueError("moments of a table, and counts by number, must lie in memory the same way")
    # `items` says which device to launch on.
    arguments = {
        "rows": gradient.rows, "values": gradient.values, "items": table, "table": table,
        "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "row_steps": moments.row_steps,
        "grad_scale": grad_scale, "found_inf": found_inf,
        "num_rows": len(gradient.rows), "num_items": len(table), "dim": table.shape[1],
        "table_row": table.stride(0), "table_step": table.stride(1),
        "moment_row": exp_avg.stride(0), "moment_step": exp_avg.stride(1),
        "values_row": gradient.values.stride(0), "values_step": gradient.values.stride(1),
        "lr": rule.lr, "eps": rule.eps, "weight_decay": rule.weight_decay, "DECOUPLED": rule.decoupled,
        "BY_SLOT": moments.slot_steps,
    }  # fmt: skip
    for number, beta in enumerate(rule.betas, start=1):
        # In double precision here: 1 - 0.999 has few digits in float32.
        arguments |= {f"gain{number}": 1 - beta, f"decay{number}": -math.log(beta) if beta else math.inf}
    launch(move_rows, (-(-len(gradient.rows) // blocks.rows),), blocks, arguments)
