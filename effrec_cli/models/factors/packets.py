"""Rows of a sparse matrix in packets of like length, padded, so that one batched product serves many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from effrec_cli.models.factors.matrix import Interactions

_SLACK = 1.125
"""The longest row of a packet over its shortest: what is padded at most."""


@dataclass(frozen=True)
class Packet:
    """B rows and their cells.

    Attributes:
        rows: int64 [B].
        columns: int32 [B, L]; the matrix's number of columns where a row has no more cells.
        values: float32 [B, L], 0 where there is no cell; None where every cell is 1.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor | None

    def pieces(self, width: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields columns and values, at most `width` of each row at a time."""
        for first in range(0, self.columns.shape[1], width):
            some = slice(first, first + width)
            yield self.columns[:, some], None if self.values is None else self.values[:, some]


def packets(matrix: Interactions, row_bytes: Callable[[int], int], chunk_bytes: int) -> list[Packet]:
    """Returns all rows that have cells, short ones first.

    A packet holds rows whose lengths differ by an eighth at most, and no more than `chunk_bytes` let it;
    a row that is longer stands alone. Together they hold a copy of the columns (4 bytes a cell, and padding).

    Args:
        matrix: the cells.
        row_bytes: bytes that working on a row of some length takes.
        chunk_bytes: that working on a packet may take.
    """
    degrees = matrix.degrees()
    order = degrees.argsort(stable=True)
    lengths = degrees[order].cpu()
    first, found = int((lengths == 0).sum()), []
    for last, length in _cuts(lengths, first, row_bytes, chunk_bytes):
        found.append(_packet(matrix, order[first:last], length))
        first = last
    return found


def _cuts(
    lengths: Tensor, first: int, row_bytes: Callable[[int], int], chunk_bytes: int
) -> Iterator[tuple[int, int]]:
    """Yields where each packet ends, and its longest row; `lengths` ascend."""
    sizes = lengths.tolist()
    while first < len(sizes):
        longest = max(int(sizes[first] * _SLACK), sizes[first] + 1)
        alike = int(torch.searchsorted(lengths, longest, right=True))
        last = min(alike, first + max(1, chunk_bytes // row_bytes(sizes[alike - 1])))
        yield last, sizes[last - 1]
        first = last


def _packet(matrix: Interactions, rows: Tensor, length: int) -> Packet:
    start, end = matrix.offsets[rows], matrix.offsets[rows + 1]
    at = start[:, None] + torch.arange(length, device=rows.device)
    inside = at < end[:, None]
    at = at.clamp_(max=len(matrix) - 1)
    columns = torch.where(inside, matrix.columns[at].int(), matrix.num_columns)
    values = None if matrix.values is None else torch.where(inside, matrix.values[at], 0.0)
    return Packet(rows, columns, values)
