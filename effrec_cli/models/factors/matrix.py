"""Who met what, as a sparse matrix on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interactions:
    """A sparse matrix [U, V] in CSR form.

    Every cell is there once. Where a (row, column) pair is told several times, `distinct` keeps the last.

    Attributes:
        offsets: int64 [U + 1]; row u owns positions offsets[u] to offsets[u + 1].
        columns: int32 or int64 [n].
        num_columns: V.
        values: float32 [n], or None where every cell is 1.
    """

    offsets: Tensor
    columns: Tensor
    num_columns: int
    values: Tensor | None = None

    @classmethod
    def distinct(
        cls, offsets: Tensor, columns: Tensor, num_columns: int, values: Tensor | None = None
    ) -> Interactions:
        """Returns the matrix with columns ascending in each row and each cell once: the last that was told.

        Args:
            offsets: int64 [U + 1].
            columns: int32 or int64 [n], in any order within a row, repetitions allowed.
            num_columns: V, above every column.
            values: float32 [n], or None.
        """
        told = cls(offsets, columns, num_columns, values)
        cells = told.rows() * num_columns + columns
        if bool((cells[1:] > cells[:-1]).all()):
            return told
        cells, order = cells.sort(stable=True)
        last = torch.ones_like(cells, dtype=torch.bool)
        torch.ne(cells[1:], cells[:-1], out=last[:-1])
        kept = cells[last]
        rows = kept // num_columns
        return cls(
            _offsets(rows, told.num_rows),
            (kept - rows * num_columns).to(columns.dtype),
            num_columns,
            None if values is None else values[order[last]],
        )

    @property
    def num_rows(self) -> int:
        """U."""
        return len(self.offsets) - 1

    def __len__(self) -> int:
        return len(self.columns)

    def degrees(self) -> Tensor:
        """Returns how many cells each row has, int64 [U]."""
        return self.offsets[1:] - self.offsets[:-1]

    def rows(self) -> Tensor:
        """Returns the row of each cell, int64 [n]."""
        return torch.repeat_interleave(self.degrees(), output_size=len(self.columns))

    def transposed(self) -> Interactions:
        """Returns the matrix [V, U], rows ascending in each column."""
        order = self.columns.argsort(stable=True)
        values = None if self.values is None else self.values[order]
        offsets = _offsets(self.columns, self.num_columns)
        return Interactions(offsets, self.rows()[order].to(self.columns.dtype), self.num_rows, values)

    def to(self, device: torch.device | str) -> Interactions:
        """Returns the matrix on `device`."""
        values = None if self.values is None else self.values.to(device)
        return Interactions(self.offsets.to(device), self.columns.to(device), self.num_columns, values)


def _offsets(rows: Tensor, num_rows: int) -> Tensor:
    """Returns where each row's cells begin and end, int64 [num_rows + 1], of the rows of all cells."""
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
