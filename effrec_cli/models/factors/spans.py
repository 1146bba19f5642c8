"""Runs of neighbouring rows of a sparse matrix, and their two products with a table, without gathering it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.models.factors.matrix import Interactions

_VECTORS = 8
"""Of a row's width d that a step of conjugate gradients holds."""
_CELL_BYTES = 16


@dataclass(frozen=True)
class Span:
    """B neighbouring rows with n cells.

    Attributes:
        rows: which.
        offsets: int32 [B + 1], from 0.
        columns: int32 [n].
        values: float [n], or None where every cell is 1.
        num_columns: of the matrix.
    """

    rows: slice
    offsets: Tensor
    columns: Tensor
    values: Tensor | None
    num_columns: int

    def predict(self, vectors: Tensor, table: Tensor, chunk_bytes: int) -> Tensor:
        """Returns the product of each cell's row of `vectors` [B, d] with its row of `table`, [n]."""
        if self.columns.device.type == "cpu":
            return self.sampled(vectors, table)
        return self.gathered(vectors, table, chunk_bytes)

    def gathered(self, vectors: Tensor, table: Tensor, chunk_bytes: int) -> Tensor:
        """Returns what `predict` does, by products of gathered rows, as many as fit in `chunk_bytes`."""
        owner = torch.repeat_interleave(self.offsets.diff(), output_size=len(self.columns))
        step = max(1, chunk_bytes // (3 * table.shape[1] * table.element_size()))
        parts = zip(owner.split(step), self.columns.split(step), strict=True)
        found = [(vectors[row] * table[column]).sum(1) for row, column in parts]
        return torch.cat(found) if found else table.new_zeros(0)

    def sampled(self, vectors: Tensor, table: Tensor) -> Tensor:
        """Returns what `predict` does, by a product that PyTorch computes at some cells alone."""
        zeros = table.new_zeros(len(self.columns))
        shape = (len(vectors), len(table))
        cells = torch.sparse_csr_tensor(self.offsets, self.columns, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(cells, vectors, table.T, beta=0.0).values()

    def combine(self, weights: Tensor | None, table: Tensor) -> Tensor:
        """Returns each row's sum of its cells' rows of `table`, weighted [n] or 1, [B, d]."""
        return F.embedding_bag(
            self.columns,
            table,
            self.offsets,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )


def spans(matrix: Interactions, dim: int, element: int, chunk_bytes: int) -> list[Span]:
    """Returns all rows in runs that hold as many as `chunk_bytes` let them, or one.

    Args:
        matrix: the cells; their columns are copied where they are not int32.
        dim: d of the table.
        element: bytes of a number.
        chunk_bytes: that working on a span may take.
    """
    _hear_out()
    cost = matrix.degrees().cpu() * _CELL_BYTES + _VECTORS * dim * element
    columns, bounds = matrix.columns.int(), _bounds(cost, chunk_bytes)
    starts = matrix.offsets[torch.tensor(bounds, device=matrix.offsets.device)].tolist()
    return [
        Span(
            slice(first, last),
            (matrix.offsets[first : last + 1] - start).int(),
            columns[start:end],
            None if matrix.values is None else matrix.values[start:end],
            matrix.num_columns,
        )
        for (first, last), (start, end) in zip(pairwise(bounds), pairwise(starts), strict=True)
    ]


@cache
def _hear_out() -> None:
    """Lets PyTorch warn, once for all, that its CSR tensors are young; threads then have no filter to set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(
            torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.zeros(0), (1, 1)
        )


def _bounds(cost: Tensor, budget: int) -> list[int]:
    """Returns where runs begin, and the number of rows: each run costs `budget` at most, or is one row."""
    total = torch.cat([cost.new_zeros(1), cost.cumsum(0)])
    bounds = [0]
    while bounds[-1] < len(cost):
        reach = int(torch.searchsorted(total, int(total[bounds[-1]]) + budget, right=True)) - 1
        bounds.append(max(bounds[-1] + 1, min(reach, len(cost))))
    return bounds
