"""How a network gets its vectors of ids: drawn, or from a factorisation; trained, frozen, or in between."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SD = 0.1
"""Standard deviation of a table: others would make the towers' learning rates unfit (papers/cadc 1.2)."""


class IdEmbedding(nn.Module):
    """A table of vectors, and how it is read.

    Args:
        table: float32 [n, d].
        trained: whether the table moves; what does not is a buffer, without gradient or optimizer state.
        scale: what the table of the factors was multiplied by; vectors that are folded in are, too.
        own: float32 [n, extra], a second table, trained beside the first; None for none.
        slow: whether the table is to move at a lower rate than the rest.
        drawn: whether it comes from no factors.

    Attributes:
        fold_all: whether vectors that are folded in stand for all rows, and not for missing ones alone.
    """

    table: Tensor
    scale: Tensor

    def __init__(
        self,
        table: Tensor,
        *,
        trained: bool,
        scale: float = 1.0,
        own: Tensor | None = None,
        slow: bool = False,
        drawn: bool = False,
    ) -> None:
        super().__init__()
        self.slow, self.drawn, self.fold_all = slow, drawn, False
        if trained:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)
        self.own = None if own is None else nn.Parameter(own)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64, device="cpu"))

    @property
    def width(self) -> int:
        """Width of the vectors that `forward` gives."""
        return self.table.shape[1] + (0 if self.own is None else self.own.shape[1])

    @property
    def trained(self) -> bool:
        """Whether the first table moves."""
        return isinstance(self.table, nn.Parameter)

    def forward(self, rows: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns the vectors of some rows, float32 [..., width].

        Args:
            rows: int64 [...]; below 0 only with `folded`.
            folded: float [..., d], what stands for the rows that are `missing`, in the factors' own scale;
                None reads the table. A second table has zeros for rows below 0.
        """
        if folded is None:
            parts = [F.embedding(rows, table) for table in self._tables()]
            return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        known, unknown = rows.clamp(min=0), (rows < 0)[..., None]
        given = (folded * self.scale).to(self.table.dtype)
        first = torch.where(self.missing(rows)[..., None], given, F.embedding(known, self.table))
        if self.own is None:
            return first
        return torch.cat([first, F.embedding(known, self.own).masked_fill(unknown, 0)], -1)

    def missing(self, rows: Tensor) -> Tensor:
        """Returns which rows have no vector of their own, bool like `rows`: those that are folded in.

        Below 0 they stand for nobody that the table knows; a vector of zeros is of a row without a training
        row in the factorisation (a kind that keeps biases has ones in it, and no zeros).
        """
        if self.fold_all:
            return torch.ones_like(rows, dtype=torch.bool)
        if self.drawn:
            return rows < 0
        own = F.embedding(rows.clamp(min=0), self.table.detach())
        return (rows < 0) | ~(own != 0).any(-1)

    def twin(self) -> IdEmbedding:
        """Returns another like it for a second network: itself where it is frozen, else one of its own.

        Tables from factors start alike, drawn ones are drawn anew.
        """
        if not self.trained:
            return self
        if self.drawn:
            return drawn(*self.table.shape)
        return IdEmbedding(self.table.detach().clone(), trained=True, scale=float(self.scale), slow=self.slow)

    def _tables(self) -> list[Tensor]:
        return [self.table] if self.own is None else [self.table, self.own]


def scale_of(table: Tensor) -> float:
    """Returns what brings a table to standard deviation `SD`; 1 for one of zeros."""
    sd = float(table.double().std(correction=0)) if table.numel() else 0.0
    return SD / sd if sd > 0 else 1.0


def power_of_two(scale: float) -> float:
    """Returns the power of two nearest to `scale`: products of tables that it scales keep their bits."""
    return 2.0 ** round(math.log2(scale))


def drawn(rows: int, dim: int) -> IdEmbedding:
    """Returns a table N(0, `SD`) that trains; there is nothing to fold in."""
    return IdEmbedding(torch.randn(rows, dim) * SD, trained=True, scale=0.0, drawn=True)


def initialised(table: Tensor, extra: int = 0) -> IdEmbedding:
    """Returns the factors as a start that trains on: init-upd."""
    return IdEmbedding(table * scale_of(table), trained=True, scale=scale_of(table))


def frozen(table: Tensor, extra: int = 0) -> IdEmbedding:
    """Returns the factors as they are: init-frz, CADC's own."""
    return IdEmbedding(table * scale_of(table), trained=False, scale=scale_of(table))


def joined(table: Tensor, extra: int) -> IdEmbedding:
    """Returns the frozen factors, each with a drawn vector beside it that trains: for users who drift."""
    own = torch.randn(len(table), extra) * SD
    return IdEmbedding(table * scale_of(table), trained=False, scale=scale_of(table), own=own)


def kept_bits(table: Tensor, extra: int = 0) -> IdEmbedding:
    """Returns the frozen factors, scaled without rounding, for towers that start at their ranking."""
    scale = power_of_two(scale_of(table))
    return IdEmbedding(table * scale, trained=False, scale=scale)


def slowed(table: Tensor, extra: int = 0) -> IdEmbedding:
    """Returns the factors as a start that is to move at a lower rate: two-rate."""
    return IdEmbedding(table * scale_of(table), trained=True, scale=scale_of(table), slow=True)


STRATEGIES: dict[str, Callable[[Tensor, int], IdEmbedding]] = {
    "init_upd": initialised,
    "init_frz": frozen,
    "concat": joined,
    "residual": kept_bits,
    "two_rate": slowed,
}
"""From factors float32 [n, d] and the width of a second table to the embedding (papers/cadc section 1.4)."""
