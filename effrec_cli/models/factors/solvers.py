"""Least squares for many rows at once: min over p of |X p - t|^2 + p' D p, D diagonal, X gathered rows.

Rows of one packet are solved together. What one thread with AVX-512 takes was measured at d = 64: 80 ns a
cell to form X'X, 14 us to factorise it, 0.5 us for 16 x 16. A product of conjugate gradients
(`conjugate.py`) takes 8 ns a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effrec_cli.models.factors.packets import Packet


@dataclass(frozen=True)
class Plan:
    """How rows are solved.

    Attributes:
        solver: `cholesky` solves exactly; `cg` takes `cg_steps` steps of preconditioned conjugate gradients
            from where the row stood; `blocks` solves for `block` coordinates after another, once each
            (iALS++, Rendle et al. 2021).
        block: coordinates solved at once.
        cg_steps: at most.
        chunk_bytes: that gathered rows and normal matrices may take, a thread.
    """

    solver: str
    block: int
    cg_steps: int
    chunk_bytes: int

    def row_bytes(self, length: int, dim: int, element: int) -> int:
        """Returns what solving a row of `length` cells takes: X, one product of its size, two matrices."""
        if self.dual(length, dim):
            return element * (2 * length * dim + 2 * length**2)
        side = min(self.block, dim) if self.solver == "blocks" else dim
        return element * (2 * length * dim + 2 * side * dim)

    def width(self, dim: int, element: int) -> int:
        """Returns how many cells of one row are gathered at once."""
        return max(64, self.chunk_bytes // (2 * dim * element))

    def dual(self, length: int, dim: int) -> bool:
        """Returns whether rows so short are solved in the space of their cells, exactly, by both solvers.

        At half of d the L x L system and its product take about as long as the d x d one, and less below.
        """
        return 2 * length <= dim


def solve(packet: Packet, table: Tensor, diagonal: Tensor, start: Tensor, plan: Plan) -> Tensor:
    """Returns the rows' solutions [B, d], by `cholesky` or `blocks`.

    Args:
        packet: B rows; their `values` are the targets t, 1 where there are none.
        table: [V + 1, d], the last row zero.
        diagonal: D [B, d], above 0.
        start: [B, d], where the rows stand; exact solvers do not look at it.
        plan: how.
    """
    if plan.dual(packet.columns.shape[1], table.shape[1]):
        return _dual(packet, table, diagonal)
    if plan.solver == "blocks":
        return _Blocks(packet, table, diagonal, plan).solve(start.clone())
    return _cholesky(packet, table, diagonal, plan)


def gathered(table: Tensor, columns: Tensor) -> Tensor:
    """Returns table[columns], [B, L, d]."""
    return table.index_select(0, columns.reshape(-1)).view(*columns.shape, table.shape[1])


def _targets(rows: Tensor, values: Tensor | None) -> Tensor:
    """Returns X't, [B, d]; a cell without value is 1, and padding's row is zero."""
    return rows.sum(1) if values is None else torch.bmm(values[:, None], rows)[:, 0]


def _cholesky(packet: Packet, table: Tensor, diagonal: Tensor, plan: Plan) -> Tensor:
    normal, right = torch.diag_embed(diagonal), torch.zeros_like(diagonal)
    for columns, values in packet.pieces(plan.width(table.shape[1], table.element_size())):
        rows = gathered(table, columns)
        normal.baddbmm_(rows.mT, rows)
        right += _targets(rows, values)
    return _solved(normal, right)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Returns the solutions [B, d] of positive definite systems [B, d, d], NaN where they are not."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    found = torch.cholesky_solve(right[..., None], factor)[..., 0]
    return found.masked_fill_((failed != 0)[:, None], float("nan"))


def _dual(packet: Packet, table: Tensor, diagonal: Tensor) -> Tensor:
    """Solves by p = D^-1 X' (I + X D^-1 X')^-1 t: a system of cells in place of one of dimensions."""
    root = diagonal.rsqrt()
    rows = gathered(table, packet.columns).mul_(root[:, None])
    kernel = torch.bmm(rows, rows.mT)
    kernel.diagonal(dim1=1, dim2=2).add_(1)
    targets = kernel.new_ones(kernel.shape[:2]) if packet.values is None else packet.values
    weights = _solved(kernel, targets)  # padding's rows of X are zero, so that its weights count for nothing
    return torch.bmm(weights[:, None], rows)[:, 0] * root


class _Blocks:
    """Newton steps for a block of coordinates after another, the others staying; each lowers the objective.

    Rows that are too long to be gathered at once are gathered anew for each block, piece by piece.
    """

    def __init__(self, packet: Packet, table: Tensor, diagonal: Tensor, plan: Plan) -> None:
        self.table, self.diagonal, self.block = table, diagonal, plan.block
        width = plan.width(table.shape[1], table.element_size())
        self.pieces = list(packet.pieces(width))
        self.whole = gathered(table, packet.columns) if len(self.pieces) == 1 else None

    def solve(self, found: Tensor) -> Tensor:
        """Returns `found` [B, d] after one step for each block."""
        errors = [self._error(*piece, found) for piece in self.pieces]
        for first in range(0, found.shape[1], self.block):
            some = slice(first, first + self.block)
            step = _solved(*self._system(found, errors, some))
            found[:, some] -= step
            for error, (columns, _) in zip(errors, self.pieces, strict=True):
                error.sub_(torch.bmm(self._rows(columns)[..., some], step[..., None])[..., 0])
        return found

    def _rows(self, columns: Tensor) -> Tensor:
        return gathered(self.table, columns) if self.whole is None else self.whole

    def _error(self, columns: Tensor, values: Tensor | None, found: Tensor) -> Tensor:
        """Returns scores less targets, [B, l]; of padding 0."""
        targets = (columns < len(self.table) - 1).to(found.dtype) if values is None else values
        return torch.bmm(self._rows(columns), found[..., None])[..., 0] - targets

    def _system(self, found: Tensor, errors: list[Tensor], some: slice) -> tuple[Tensor, Tensor]:
        """Returns the second derivatives [B, b, b] and the first [B, b] of a block, halved."""
        normal = torch.diag_embed(self.diagonal[:, some])
        slope = self.diagonal[:, some] * found[:, some]
        for error, (columns, _) in zip(errors, self.pieces, strict=True):
            part = self._rows(columns)[..., some]
            normal.baddbmm_(part.mT, part)
            slope += torch.bmm(error[:, None], part)[:, 0]
        return normal, slope
