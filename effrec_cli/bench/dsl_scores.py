"""Scoring a catalogue by packed tables, and by dense ones with a matrix product."""

from __future__ import annotations

from typing import Any

import torch
from effrec_kernels import packed_scores
from torch import Tensor

from effrec_cli.bench.clock import median_seconds
from effrec_cli.bench.dsl_blocks import kept_blocks
from effrec_cli.bench.dsl_steps import DENSE
from effrec_cli.bench.suites import Trial
from effrec_cli.evaluation.held import weights_bytes
from effrec_cli.models.sparse.served import ServedTable, served
from effrec_cli.models.sparse.tables import DenseTable, PackedTable, Shape
from effrec_cli.schema.method_dsl import DSLConfig, small_dim

SMALL = "dense, as many bytes"
SCORERS = {
    DENSE: ("dense", "fp32"),
    "dense, bf16": ("dense", "bf16"),
    "dense, int8": ("dense", "int8"),
    SMALL: ("dense", "fp32"),
    "packed row": ("row", "fp32"),
    "packed row, bf16": ("row", "bf16"),
    "packed row, int8": ("row", "int8"),
    "packed global": ("global", "fp32"),
}
"""How a table is stored and in what numbers, by who scores; SMALL is as narrow as a packed one."""
_MIB = 1 << 20


def scoring(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns scores of some users for all items, made once before.

    Args:
        parameters: `items`, `at once` (users), `dim` and `density`.
        peer: one of SCORERS.
        device: where.
    """
    table = table_of(parameters, peer).to(device)
    draw = torch.Generator().manual_seed(1)
    users = torch.randn(parameters["at once"], table.shape.dim, generator=draw).to(device)

    def once() -> dict[str, float]:
        with kept_blocks():
            seconds = median_seconds(lambda: scores(users, table), device)
        return {
            "scores": 1000 * seconds,
            "multiply-adds": table.live / parameters["items"],
            "table": weights_bytes(table) / _MIB,
        }

    return once


def table_of(parameters: dict[str, Any], peer: str) -> ServedTable:
    """Returns the table that a peer serves, drawn, on the CPU; arguments as of `scoring`."""
    stored, values = SCORERS[peer]
    items, dim, density = (parameters[name] for name in ("items", "dim", "density"))
    if peer == SMALL:
        dim = max(1, small_dim(DSLConfig(dim=dim, density=density)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if stored == "dense":
            return served(DenseTable(Shape(items, dim)), values)
        return served(PackedTable(Shape(items, dim, density, stored)), values)


@torch.no_grad()
def scores(users: Tensor, table: ServedTable) -> Tensor:
    """Returns products float32 [b, N] of users float32 [b, d] with all items.

    Dense tables in 16 bits are multiplied in 16 bits, those in 8 bits are made float32 first.
    """
    if table.packed is not None:
        return packed_scores(users, table.packed)
    numbers = table.table
    assert numbers is not None
    if table.scale is not None:
        return (users @ numbers.float().t()) * table.scale
    return (users.to(numbers.dtype) @ numbers.t()).float()
