"""Tables of ids' vectors that train: dense, packed, or dense under a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from effrec_kernels import RowSparse, coalesce
from effrec_kernels.packed import PackedRows
from effrec_kernels.packed_lookup import packed_embedding
from torch import Tensor, nn

from effrec_cli.models.sparse.growth import GradientScores
from effrec_cli.models.sparse.start import mask_blocks, normal_packed, normal_table


@dataclass(frozen=True)
class Shape:
    """What a table is like.

    Attributes:
        rows: N.
        dim: d, the width of the vectors that are read.
        density: p, share of the numbers that are live.
        structure: `row`, as many in each row; or `global`.
        seed: of the places of live numbers.
        deviation: of the numbers at first.
    """

    rows: int
    dim: int
    density: float = 1.0
    structure: str = "row"
    seed: int = 0
    deviation: float = 0.01


class IdTable(nn.Module, ABC):
    """Base of the tables.

    Args:
        shape: of the table.

    Attributes:
        scores: what the gradients of read rows are summed in; None while nobody asks for them.
        fold_all: nothing is ever folded in; there to be read by what may hold vectors of factors.
    """

    trained = True
    fold_all = False
    sparse = True
    """As of `nn.Embedding`: gradients are rows, so what pads is to be a row that is read anyway."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.scores: GradientScores | None = None

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        return self.shape.dim

    @torch.compiler.disable
    def forward(self, rows: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns vectors float32 [..., d] of rows int64 [...].

        Where nothing is recorded, rows below 0, whom nobody knows, have zeros.

        Args:
            rows: which.
            folded: must be None.
        """
        assert folded is None
        if torch.is_grad_enabled():  # training reads known rows alone
            return self.look_up(rows)
        return self.look_up(rows.clamp(min=0)) * (rows >= 0)[..., None]

    @abstractmethod
    def look_up(self, rows: Tensor) -> Tensor:
        """Returns vectors [..., d] of rows int64 [...], 0 or more."""

    @property
    @abstractmethod
    def weights(self) -> nn.Parameter:
        """The numbers that train."""

    @torch.no_grad()
    def silence(self, rows: Tensor) -> None:
        """Makes the vectors of rows, bool [N], zero: those of users without a training row say nothing."""
        self.weights[rows] = 0

    def missing(self, rows: Tensor) -> Tensor:
        """Returns that no row is to be folded in, bool like `rows`."""
        return torch.zeros_like(rows, dtype=torch.bool)

    def twin(self) -> IdTable:
        """Returns another table like it, drawn anew."""
        return type(self)(Shape(**{**vars(self.shape), "seed": self.shape.seed + 1}))


class DenseTable(IdTable):
    """A whole table [N, d], whose gradients hold the rows that were read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.table = nn.Parameter(normal_table(shape.rows, shape.dim, shape.deviation))

    @property
    def weights(self) -> nn.Parameter:
        """[N, d]."""
        return self.table

    def look_up(self, rows: Tensor) -> Tensor:
        """Returns vectors of rows."""
        return F.embedding(rows, self.table, sparse=True)


class PackedTable(IdTable):
    """Live numbers and their columns alone; see `effrec_kernels.packed.PackedRows`."""

    columns: Tensor
    offsets: Tensor | None

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        packed = normal_packed(
            shape.rows, shape.dim, shape.deviation, shape.density, shape.structure, shape.seed
        )
        self.values = nn.Parameter(packed.values)
        self.register_buffer("columns", packed.columns)
        self.register_buffer("offsets", packed.offsets)

    @torch.no_grad()
    def narrow(self, width: int) -> Tensor:
        """Keeps each row's `width` largest numbers, of equals the first; rows must be of one size.

        Returns:
            int64 [N, width], which of the k numbers before they are.
        """
        order = self.values.abs().sort(dim=1, descending=True, stable=True).indices[:, :width]
        kept = order.sort(dim=1).values
        self.values.data, self.columns = self.values.gather(1, kept), self.columns.gather(1, kept)
        return kept

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Takes rows of another size, too, as they had it when they were kept."""
        values, columns = state.get(f"{prefix}values"), state.get(f"{prefix}columns")
        if values is not None and columns is not None and values.shape != self.values.shape:
            self.values.data = self.values.new_empty(values.shape)
            self.columns = self.columns.new_empty(columns.shape)
        super()._load_from_state_dict(state, prefix, *rest)

    @property
    def weights(self) -> nn.Parameter:
        """[N, k], or with structure `global` [B, 1]."""
        return self.values

    @torch.no_grad()
    def silence(self, rows: Tensor) -> None:
        """Makes the live numbers of rows, bool [N], zero."""
        if self.offsets is not None:
            rows = rows.repeat_interleave(self.offsets.diff())
        self.values[rows] = 0

    @property
    def packed(self) -> PackedRows:
        """The table as it is now; shares its memory."""
        return PackedRows(self.values, self.columns, self.shape.dim, self.offsets)

    def look_up(self, rows: Tensor) -> Tensor:
        """Returns vectors of rows."""
        scores = self.scores.add if self.scores is not None and torch.is_grad_enabled() else None
        return packed_embedding(rows, self.packed, scores=scores)


class MaskedTable(IdTable):
    """A whole table [N, d] of which a mask keeps some numbers at 0: it saves nothing."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        parts = mask_blocks(shape.rows, shape.dim, shape.density, shape.structure, shape.seed)
        mask = torch.cat(list(parts))
        self.table = nn.Parameter(normal_table(shape.rows, shape.dim, shape.deviation) * mask)
        self.register_buffer("mask", mask)

    @property
    def weights(self) -> nn.Parameter:
        """[N, d]."""
        return self.table

    def look_up(self, rows: Tensor) -> Tensor:
        """Returns vectors of rows."""
        return _MaskedRows.apply(self.table, self.mask, rows, self._scores())

    def whole(self) -> Tensor:
        """Returns the table [N, d], for what reads all of it; its gradient is dense, and 0 where masked."""
        return _MaskedWhole.apply(self.table, self.mask, self._scores())

    def _scores(self) -> GradientScores | None:
        return self.scores if torch.is_grad_enabled() else None


class _MaskedRows(torch.autograd.Function):
    """Rows of a masked table; backward gives rows, masked, and tells what they were before."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, mask: Tensor, rows: Tensor, scores: GradientScores | None) -> Tensor:
        ctx.save_for_backward(mask, rows)
        ctx.scores = scores
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, of_rows: Tensor) -> tuple[Tensor | None, ...]:
        mask, rows = ctx.saved_tensors
        given = coalesce(
            RowSparse(rows.flatten(), of_rows.reshape(-1, mask.shape[1]), len(mask)), compact=True
        )
        if ctx.scores is not None:
            ctx.scores.add(given)
        masked = RowSparse(given.rows, given.values * mask[given.rows], given.num_rows)
        return masked.gradient(coalesced=True), None, None, None


class _MaskedWhole(torch.autograd.Function):
    """A whole masked table; backward masks, and tells what the gradient was before."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, mask: Tensor, scores: GradientScores | None) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scores = scores
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        if ctx.scores is not None:
            every = torch.arange(len(mask), device=mask.device)
            ctx.scores.add(RowSparse(every, gradient, len(mask)))
        return gradient * mask, None, None


KINDS: dict[str, type[IdTable]] = {"dense": DenseTable, "packed": PackedTable, "masked": MaskedTable}
"""How a table is stored, by name."""
