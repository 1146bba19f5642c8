"""Gradients of a table that hold rows and not the table: as autograd adds them up, and with each row once.

A loss or a look-up that touches K rows of a [V, D] table knows K from shapes, so a gradient of K rows needs
no answer from the device. Autograd carries it as PyTorch's sparse tensor that may hold a row several times
(`uncoalesced`): on CUDA adding two of them is a concatenation, and nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Places of a sorted gradient that one worker sums at most.
PIECE = 64


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

    Sums are made in an order that the slots alone decide, without atomics: the same bits come out each time.
    Workspace: about 60 bytes a slot besides the result, and K slots already added up in part where `compact`
    is False.

    Args:
        gradient: a sparse [V, D] tensor, or its rows; K slots.
        compact: False gives K slots again, the last of them unused, and waits for nothing. True gives as many
            as there are distinct rows, which a GPU must be waited for. None is True on a CPU alone.

    Raises:
        TypeError: the gradient is no sparse [V, D] tensor.
    """
    given = gradient if isinstance(gradient, RowSparse) else RowSparse.of(_sparse(gradient))
    if len(given.rows) == 0:
        return given
    rows, order = given.rows.sort(stable=True)
    if given.rows.is_cpu if compact is None else compact:
        rows, order = _without_unused(rows, order, given.num_rows)
        starts = _first_of_run(rows).nonzero().squeeze(1)
        found = rows.index_select(0, starts)
        return RowSparse(found, _bags(given.values, order, starts), given.num_rows)
    first = _first_of_run(rows)
    starts = _places(first)
    used = starts < len(rows)
    found = rows.index_select(0, starts.clamp(max=len(rows) - 1)).masked_fill_(~used, given.num_rows)
    return RowSparse(found, _run_sums(given.values, order, first, starts), given.num_rows)


def _sparse(gradient: Tensor) -> Tensor:
    if not isinstance(gradient, Tensor) or gradient.layout != torch.sparse_coo or gradient.dense_dim() != 1:
        what = f"a {gradient.layout} tensor" if isinstance(gradient, Tensor) else type(gradient).__name__
        raise TypeError(f"gradient must be a torch.sparse_coo [V, D] tensor, or a RowSparse, not {what}")
    return gradient


def _places(marks: Tensor) -> Tensor:
    """Returns int64 [K]: where the marks among K are, in order; K behind the last of them."""
    return torch.searchsorted(marks.cumsum(0) - 1, torch.arange(len(marks), device=marks.device))


def _first_of_run(rows: Tensor) -> Tensor:
    """Returns bool [K]: whether a sorted row differs from the one before it."""
    first = torch.ones_like(rows, dtype=torch.bool)
    torch.ne(rows[1:], rows[:-1], out=first[1:])
    return first


def _without_unused(rows: Tensor, order: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Returns sorted rows and their order without the unused slots, which stand last."""
    used = int(torch.searchsorted(rows, num_rows))
    return rows[:used], order[:used]


def _run_sums(values: Tensor, order: Tensor, first: Tensor, starts: Tensor) -> Tensor:
    """Returns [K, D]: sums of the runs of values[order] that begin at `starts`; those at K are empty.

    A run is cut at every 64th place and its pieces are summed, then the pieces: the thousands of slots that a
    popular item may have are not one worker's.

    Args:
        values: [K, D].
        order: int64 [K].
        first: bool [K], where runs begin.
        starts: int64 [K], the same as numbers.
    """
    at = torch.arange(len(order), device=order.device)
    begins = first | (at % PIECE == 0)
    pieces = _bags(values, order, _places(begins))
    number = begins.cumsum(0) - 1
    count = number[-1:] + 1
    of_runs = torch.where(starts < len(at), number.index_select(0, starts.clamp(max=len(at) - 1)), count)
    return _bags(pieces, at, torch.cat([of_runs, count]), last=True)


def _bags(values: Tensor, order: Tensor, starts: Tensor, *, last: bool = False) -> Tensor:
    """Returns sums of values[order] from each of `starts` to the next, [len(starts), D]; empty ones are 0.

    With `last` the last of the starts is only an end. Sums are made in float32, or float64 for such values.
    """
    if len(starts) == 0:
        return values.new_zeros(0, values.shape[1])
    wide = values if values.dtype == torch.float64 else values.float()
    with torch.autocast(values.device.type, enabled=False):
        bags = torch.embedding_bag(wide, order, starts, False, 0, False, None, last)
    return bags[0].to(values.dtype)
