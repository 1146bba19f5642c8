"""Scores of dense users by packed items: a multiplication and an addition a slot, and no dense table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import chunks
from .dispatch import which_kernel
from .packed import PackedRows, unpack
from .tensors import FLOATS, shape

# Scores of a block of items alive before they go to their users' rows: what a CPU's caches hold. Measured.
CPU_BLOCK_BYTES = 512 << 10
DEVICE_BLOCK_BYTES = 32 << 20
# Ids, weights and a value a slot.
SLOT_BYTES = 12

Block = Callable[[Tensor, PackedRows, slice], Tensor]


def packed_scores(
    hidden: Tensor, packed: PackedRows, *, rows: slice | None = None, kernel: str = "auto"
) -> Tensor:
    """Returns products of dense users with the rows of a packed table; no derivative is recorded.

    On a CPU rows of which at most half the columns have a slot are summed as bags of the users' columns, k
    multiplications and additions a score; fuller ones are unpacked a block at a time for matrix products.
    Measured at d = 128, one thread, in ns a score (256 users; k = 3, 13, 32, 64): bags 1.1, 1.3, 1.7, 3.1;
    blocks 2.8, 2.9, 3.1, 3.1; products of `torch.sparse_csr` 1.4, 2.1, 3.5, 5.5. On a GPU `auto` takes
    matrix products of unpacked blocks until one has shown which is faster, `triton` takes k of each row.

    Args:
        hidden: [b, d] floats, the users.
        packed: the items, also int8 ones with `scale`.
        rows: which of them, a slice of step 1; all where None.
        kernel: `auto`, `triton` or `torch`.

    Returns:
        [b, N], or of as many rows as asked for; float32 whatever the inputs are and autocast says, float64
        where both are. Workspace: a block's scores.

    Raises:
        ValueError: `hidden` is not [b, d], or the slice has another step. TypeError: it holds no floats.
        KernelUnavailable: `kernel` cannot run here.
    """
    first, count = _span(rows, packed.num_rows)
    _check_hidden(hidden, packed.dim)
    wide = hidden.dtype == packed.values.dtype == torch.float64
    dtype = torch.float64 if wide else torch.float32
    scores = torch.empty(len(hidden), count, dtype=dtype, device=hidden.device)
    if not scores.numel():
        return scores
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        if which_kernel(kernel, packed.values, full=True) == "triton":
            from .triton_kernels.packed import score

            score(hidden, packed, first, scores)
        else:
            _score_blocks(hidden.to(dtype), packed, first, scores)
    return scores


def _score_blocks(hidden: Tensor, packed: PackedRows, first: int, scores: Tensor) -> None:
    """Writes scores [b, n] of rows from `first` on, a block of them at a time."""
    width = -(-packed.live // packed.num_rows)
    bags = hidden.is_cpu and 2 * width <= packed.dim
    block: Block = _bags if bags else _products
    users = hidden.t().contiguous() if bags else hidden
    item_bytes = max(hidden.element_size() * len(hidden), SLOT_BYTES * width if bags else 4 * packed.dim)
    room = CPU_BLOCK_BYTES if hidden.is_cpu else DEVICE_BLOCK_BYTES
    for some in chunks.slices(scores.shape[1], chunks.rows_at_once(room, item_bytes)):
        scores[:, some] = block(users, packed, slice(first + some.start, first + some.stop))


def _products(users: Tensor, packed: PackedRows, rows: slice) -> Tensor:
    """Returns [b, n] of users [b, d] and some rows, unpacked."""
    numbers = torch.arange(rows.start, rows.stop, device=users.device)
    return users @ unpack(packed, numbers, kernel="torch").to(users.dtype).t()


def _bags(columns_of_users: Tensor, packed: PackedRows, rows: slice) -> Tensor:
    """Returns [b, n] of users, transposed [d, b], and some rows: each is a weighted sum of their columns."""
    if packed.offsets is None:
        values, columns = packed.values[rows], packed.columns[rows]
        starts = torch.arange(0, columns.numel(), columns.shape[1], dtype=torch.int32)
    else:
        begin, end = int(packed.offsets[rows.start]), int(packed.offsets[rows.stop])
        values, columns = packed.values[begin:end], packed.columns[begin:end]
        starts = packed.offsets[rows].sub(begin).int()
    weights = values.to(columns_of_users.dtype).flatten()
    at = columns.flatten().int()
    sums = torch.embedding_bag(columns_of_users, at, starts, False, 0, False, weights)[0]
    return sums.t() if packed.scale is None else sums.t() * packed.scale[rows]


def _span(rows: slice | None, num_rows: int) -> tuple[int, int]:
    """Returns the first of the rows that are asked for and their number."""
    start, stop, step = (rows or slice(None)).indices(num_rows)
    if step != 1:
        raise ValueError(f"rows must be a slice of step 1, not of {step}: index the scores instead")
    return start, max(0, stop - start)


def _check_hidden(hidden: Tensor, dim: int) -> None:
    """Raises ValueError or TypeError unless users are [b, d] floats."""
    if hidden.dtype not in FLOATS:
        raise TypeError(f"hidden must be floats, not {hidden.dtype}")
    if hidden.dim() != 2 or hidden.shape[1] != dim:
        raise ValueError(f"hidden must be [b, {dim}], as wide as the packed rows, not {shape(hidden)}")
