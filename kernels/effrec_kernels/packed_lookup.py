"""Rows of a packed table as dense ones, with a derivative that is as sparse as the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import chunks
from .dispatch import which_kernel
from .looks import check_numbers
from .packed import PackedRows, row_blocks, slots_of, unpack
from .row_sparse import RowSparse, coalesce

# Sums of dense rows alive at a time on a CPU.
SUM_BYTES = 512 << 10

Scores = Callable[[RowSparse], None]


def packed_embedding(
    ids: Tensor, packed: PackedRows, *, scores: Scores | None = None, kernel: str = "auto"
) -> Tensor:
    """Returns rows of a packed table as dense ones, as `F.embedding` looks rows up.

    Backward gives `packed.values` a row-sparse gradient, of the slots of the rows that were read and of no
    others: neither forward nor backward holds anything of size [N, k] or [N, d]. With fixed k its rows are
    those of [N, k], as often as ids name them. Ragged, each slot of [B, 1] stands there once.

    Args:
        ids: int64 or int32 [*], any shape, any of them repeated.
        packed: the table; no second derivative is made.
        scores: called in backward with the dense gradient of the rows that were read, each row once, rows
            rising: a `RowSparse` of [N, d], by which slots to grow are ranked. Nothing of it is kept here.
            The same bits come out each time. A GPU is then waited for.
        kernel: `auto`, `triton` or `torch`.

    Returns:
        [*, d] in the values' dtype; exactly 0 where a row has no slot.

    Raises:
        IndexError: an id is no row (looked for on a CPU; on CUDA with EFFREC_DEBUG=1, where it gives NaN
            else). TypeError: ids are no integers.
        KernelUnavailable: `kernel` cannot run here.
    """
    check_numbers("ids", ids, packed.num_rows)
    rows = ids.flatten().long()
    which = which_kernel(kernel, packed.values)
    return _Lookup.apply(packed.values, rows, packed, scores, which).view(*ids.shape, packed.dim)


class _Lookup(torch.autograd.Function):
    """Rows [n] of a packed table as [n, d]."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Tensor, packed: PackedRows, scores: Scores | None, kernel: str
    ) -> Tensor:
        ctx.save_for_backward(rows, packed.columns, packed.offsets)
        ctx.values, ctx.dim, ctx.scores, ctx.kernel = values.detach(), packed.dim, scores, kernel
        return unpack(packed, rows, kernel=kernel)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_rows: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, offsets = ctx.saved_tensors
        packed = PackedRows(ctx.values, columns, ctx.dim, offsets)
        given = RowSparse(rows, of_rows, packed.num_rows)
        if ctx.scores is not None:
            given = coalesce(given, compact=True)
            ctx.scores(given)
        found = at_slots(packed, given, once=ctx.scores is not None, kernel=ctx.kernel)
        return found.gradient(), None, None, None, None


def at_slots(packed: PackedRows, gradient: RowSparse, *, once: bool, kernel: str = "torch") -> RowSparse:
    """Returns what the dense gradient of some rows is at their slots, as rows of the table's values.

    Args:
        packed: the table.
        gradient: rows [n] of [N, d].
        once: whether each row stands there once, rising.
        kernel: `triton` or `torch`.

    Returns:
        With fixed k the same rows [n] of [N, k]. Ragged, rows of [B, 1]: all slots of the rows, each once.
    """
    if kernel == "triton":
        from .triton_kernels import packed as on_device

        if packed.offsets is not None and not once:
            gradient = coalesce(gradient, compact=True)
        return on_device.at_slots(packed, gradient)
    if packed.offsets is None:
        return RowSparse(gradient.rows, _fixed(packed, gradient), packed.num_rows)
    blocks = _slices(packed, gradient) if once else _sums(packed, gradient)
    parts = [_ragged(packed, block) for block in blocks]
    slots = torch.cat([gradient.rows.new_empty(0), *(slots for slots, _ in parts)])
    values = torch.cat([gradient.values.new_empty(0), *(values for _, values in parts)])
    return RowSparse(slots, values[:, None], packed.live)


def _fixed(packed: PackedRows, gradient: RowSparse) -> Tensor:
    """Returns [n, k]: the gradient at the columns of its rows."""
    shape = (len(gradient.rows), packed.columns.shape[1])
    found = torch.empty(shape, dtype=gradient.values.dtype, device=gradient.values.device)
    for some in row_blocks(packed, len(found)):
        at = packed.columns.index_select(0, gradient.rows[some]).long()
        torch.gather(gradient.values[some], 1, at, out=found[some])
    return found


def _ragged(packed: PackedRows, gradient: RowSparse) -> tuple[Tensor, Tensor]:
    """Returns slots [S] of the rows of a gradient, and the gradient at them [S]."""
    slots, owner = slots_of(packed, gradient.rows)
    at = packed.columns.index_select(0, slots).long().add_(owner * packed.dim)
    return slots, gradient.values.reshape(-1).index_select(0, at)


def _slices(packed: PackedRows, gradient: RowSparse) -> Iterator[RowSparse]:
    """Yields a gradient that holds each row once, a few rows at a time."""
    for some in row_blocks(packed, len(gradient.rows)):
        yield RowSparse(gradient.rows[some], gradient.values[some], gradient.num_rows)


def _sums(packed: PackedRows, gradient: RowSparse) -> Iterator[RowSparse]:
    """Yields a gradient with each row once, rising; on a CPU a few at a time, to hold no copy of all."""
    if not gradient.rows.is_cpu:
        yield coalesce(gradient, compact=True)
        return
    rows, order = gradient.rows.sort(stable=True)
    counts = torch.unique_consecutive(rows, return_counts=True)[1]
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row_bytes = packed.dim * gradient.values.element_size()
    for some in chunks.slices(len(counts), chunks.rows_at_once(SUM_BYTES, row_bytes)):
        places = slice(int(ends[some.start]), int(ends[some.stop]))
        values = gradient.values.index_select(0, order[places])
        yield coalesce(RowSparse(rows[places], values, gradient.num_rows))
