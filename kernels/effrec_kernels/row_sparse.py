"""Gradients of a table that hold rows and not the table: as autograd adds them up, and with each row once.

A loss or a look-up that touches K rows of a [V, D] table knows K from shapes, so a gradient of K rows needs
no answer from the device. Autograd carries it as PyTorch's sparse tensor that may hold a row several times
(`uncoalesced`): on CUDA adding two of them is a concatenation, and nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowSparse:
    """Some rows of a [V, D] gradient; all others are 0.

    Attributes:
        rows: int64 [K]. `num_rows` marks a slot that is not used, whose values are 0.
        values: [K, D].
        num_rows: V.
    """

    rows: Tensor
    values: Tensor
    num_rows: int

    @classmethod
    def of(cls, gradient: Tensor) -> RowSparse:
        """Returns the rows of a sparse [V, D] gradient, as often as they stand there; no copy is made."""
        return cls(gradient._indices()[0], gradient._values(), len(gradient))

    def gradient(self, *, coalesced: bool = False) -> Tensor:
        """Returns the rows as PyTorch's sparse [V, D] tensor; no copy is made.

        Args:
            coalesced: whether they are those of `coalesce`. Unused slots, if there are any, are then outside
                of the tensor: only what knows them, such as `RowAdam`, may read it.
        """
        made = torch.sparse_coo_tensor(
            self.rows[None], self.values, (self.num_rows, self.values.shape[1]), check_invariants=False
        )
        return made._coalesced_(True) if coalesced else made


def coalesce(gradient: Tensor | RowSparse, *, compact: bool | None = None) -> RowSparse:
    """Returns the gradient with each row once: rows rise, and what stood for one row is summed.

    Sums are made in the order of the slots, so the same bits come out each time, on a CPU as on a GPU. Each
    run of equal rows is summed by one worker; there are no atomics. Workspace: about 60 bytes a slot besides
    the result.

    Args:
        gradient: a sparse [V, D] tensor, or its rows; K slots.
        compact: False gives K slots again, the last of them unused, and waits for nothing. True gives as many
            as there are distinct rows, which a GPU must be waited for. None is True on a CPU alone.
    """
    given = gradient if isinstance(gradient, RowSparse) else RowSparse.of(gradient)
    if len(given.rows) == 0:
        return given
    rows, order = given.rows.sort(stable=True)
    if given.rows.is_cpu if compact is None else compact:
        rows, order = _without_unused(rows, order, given.num_rows)
        starts = _first_of_run(rows).nonzero().squeeze(1)
        found = rows.index_select(0, starts)
    else:
        starts = torch.searchsorted(
            _first_of_run(rows).cumsum(0) - 1, torch.arange(len(rows), device=rows.device)
        )
        used = starts < len(rows)
        found = rows.index_select(0, starts.clamp(max=len(rows) - 1)).masked_fill_(~used, given.num_rows)
    return RowSparse(found, _run_sums(given.values, order, starts), given.num_rows)


def _first_of_run(rows: Tensor) -> Tensor:
    """Returns bool [K]: whether a sorted row differs from the one before it."""
    first = torch.ones_like(rows, dtype=torch.bool)
    torch.ne(rows[1:], rows[:-1], out=first[1:])
    return first


def _without_unused(rows: Tensor, order: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Returns sorted rows and their order without the unused slots, which stand last."""
    used = int(torch.searchsorted(rows, num_rows))
    return rows[:used], order[:used]


def _run_sums(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Returns [len(starts), D]: sums of the runs of values[order] that begin at `starts`; empty ones are 0.

    A run reaches to where the next begins. Sums are made in float32, or float64 for such values.
    """
    if len(starts) == 0:
        return values.new_zeros(0, values.shape[1])
    wide = values if values.dtype == torch.float64 else values.float()
    with torch.autocast(values.device.type, enabled=False):
        return torch.embedding_bag(wide, order, starts, False, 0)[0].to(values.dtype)
