"""Tables that store a few numbers of each row: values with their columns, and no dense copy of them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import chunks
from .dispatch import which_kernel
from .tensors import FLOATS, shape

# The widest rows whose columns fit one byte, and two.
BYTE_COLUMNS, SHORT_COLUMNS = 1 << 8, 1 << 15
# 64-bit indices and copies of slots alive at a time on a CPU: what its caches hold.
CPU_BYTES = 256 << 10
# What a slot needs of that: two 64-bit indices, its column and its value.
SLOT_BYTES = 32


@dataclass(frozen=True)
class PackedRows:
    """A table [N, d] of which each row stores only its slots: a value and the column that it stands in.

    With fixed k each row has k slots. Ragged rows have as many as they have: those of row r are
    offsets[r]:offsets[r + 1]. Columns of a row rise. What no slot stands for is 0.

    Attributes:
        values: [N, k] in float32, bfloat16, float16 or float64; ragged [B, 1], so that a slot's gradient is
            a row's. int8 with `scale`.
        columns: uint8 where d <= 256, else int16; [N, k], or ragged [B].
        dim: d, at most 32,768.
        offsets: int64 [N + 1], rising from 0 to B; None with fixed k.
        scale: float32 [N], factors of int8 values; None with others. Such tables serve, they do not train.

    Raises:
        ValueError: shapes do not fit each other, or d is too large. TypeError: a dtype is another.
    """

    values: Tensor
    columns: Tensor
    dim: int
    offsets: Tensor | None = None
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        _check_dtypes(self)
        slots = self.values.shape if self.offsets is None else (*self.columns.shape, 1)
        if self.values.dim() != 2 or self.values.shape != slots or self.values.numel() != self.live:
            wanted = "[N, k]" if self.offsets is None else "[B, 1] with columns [B]"
            raise ValueError(
                f"packed values must be {wanted}, one for each column, not {shape(self.values)} with columns "
                f"{shape(self.columns)}"
            )
        if self.scale is not None and self.scale.shape != (self.num_rows,):
            raise ValueError(f"scale must be [{self.num_rows}], one for each row, not {shape(self.scale)}")

    @property
    def num_rows(self) -> int:
        """Returns N."""
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    @property
    def live(self) -> int:
        """Returns how many slots there are: N k, or B."""
        return self.columns.numel()

    @property
    def bytes(self) -> int:
        """Returns what the table takes: 4 + 1 a slot in float32 with d <= 256, 8 (N + 1) more if ragged."""
        parts = (self.values, self.columns, self.offsets, self.scale)
        return sum(part.nbytes for part in parts if part is not None)


def column_dtype(dim: int) -> torch.dtype:
    """Returns the smallest integer that every column of a row of width d fits: uint8 or int16.

    Raises:
        ValueError: d is not from 1 to 32,768.
    """
    if not 1 <= dim <= SHORT_COLUMNS:
        raise ValueError(f"packed rows are from 1 to {SHORT_COLUMNS:,} wide, not {dim:,}")
    return torch.uint8 if dim <= BYTE_COLUMNS else torch.int16


def pack(dense: Tensor, mask: Tensor, *, ragged: bool) -> PackedRows:
    """Returns the numbers of a table that a mask marks; `unpack` gives them back bit by bit.

    Args:
        dense: [N, d] floats; no derivative is recorded.
        mask: bool [N, d].
        ragged: whether rows may have different numbers of slots, also none; else all have the same k >= 1.

    Raises:
        ValueError: shapes differ, d is too large, or (not ragged) counts differ or are 0. TypeError: dtypes.
    """
    _check_dense(dense, mask)
    dim = dense.shape[1]
    dtype, counts = column_dtype(dim), mask.sum(1)
    parts = [(dense[some].detach(), mask[some]) for some in _blocks(len(dense), dim, dense.device)]
    values = torch.cat([dense.new_empty(0), *(numbers[marks] for numbers, marks in parts)])
    none = torch.empty(0, dtype=dtype, device=dense.device)
    columns = torch.cat([none, *(marks.nonzero()[:, 1].to(dtype) for _, marks in parts)])
    if ragged:
        return PackedRows(values[:, None], columns, dim, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    width = _width(counts)
    return PackedRows(values.view(-1, width), columns.view(-1, width), dim)


def unpack(packed: PackedRows, rows: Tensor | None = None, *, kernel: str = "auto") -> Tensor:
    """Returns rows of the table as dense ones, exactly 0 where there is no slot; no derivative is recorded.

    Args:
        packed: the table.
        rows: int64 [*], which; all where None.
        kernel: `auto`, `triton` or `torch`.

    Returns:
        [*, d], or [N, d], in the values' dtype; float32 for int8 values, times their rows' scales.
    """
    if rows is None:
        rows = torch.arange(packed.num_rows, device=packed.values.device)
    dtype = packed.values.dtype if packed.scale is None else torch.float32
    dense = torch.zeros((rows.numel(), packed.dim), dtype=dtype, device=packed.values.device)
    flat = rows.flatten()
    if which_kernel(kernel, packed.values) == "triton":
        from .triton_kernels.packed import unpack_into

        unpack_into(dense, packed, flat)
        return dense.view(*rows.shape, packed.dim)
    with torch.no_grad():
        for some in row_blocks(packed, len(flat)):
            _fill_(dense[some], packed, flat[some])
    return dense.view(*rows.shape, packed.dim)


def row_blocks(packed: PackedRows, rows: int) -> Iterator[slice]:
    """Yields slices of rows whose slots are worked on at a time: a few on a CPU, all elsewhere."""
    return _blocks(rows, -(-packed.live // max(1, packed.num_rows)), packed.values.device)


def slots_of(packed: PackedRows, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns int64 [S] twice: slots of rows [n] of a ragged table in order, and which of n each is of.

    A GPU is waited for: it alone knows S.
    """
    offsets = packed.offsets
    assert offsets is not None
    starts = offsets.index_select(0, rows)
    counts = offsets.index_select(0, rows + 1) - starts
    owner = torch.repeat_interleave(counts)
    shifts = starts - (counts.cumsum(0) - counts)
    return shifts.index_select(0, owner).add_(torch.arange(len(owner), device=rows.device)), owner


def _fill_(dense: Tensor, packed: PackedRows, rows: Tensor) -> None:
    """Writes the slots of rows [n] into `dense` [n, d], which holds zeros."""
    values, columns, scale = packed.values, packed.columns, packed.scale
    if packed.offsets is None:
        values, at = values.index_select(0, rows), columns.index_select(0, rows).long()
    else:
        # As vectors: rows of one number each are many times as slow.
        slots, owner = slots_of(packed, rows)
        values, at = values[:, 0].index_select(0, slots), columns.index_select(0, slots).long()
        at.add_(owner * packed.dim)
    if scale is not None:
        factors = scale.index_select(0, rows)
        values = values * (factors[:, None] if packed.offsets is None else factors.index_select(0, owner))
    if packed.offsets is None:
        dense.scatter_(1, at, values)
    else:
        dense.view(-1).scatter_(0, at, values)


def _blocks(rows: int, slots: int, device: torch.device) -> Iterator[slice]:
    """Yields slices of rows of so many slots that fit a CPU's caches; elsewhere all in one."""
    step = chunks.rows_at_once(CPU_BYTES, slots * SLOT_BYTES) if device.type == "cpu" else rows
    return chunks.slices(rows, max(1, step))


def _width(counts: Tensor) -> int:
    """Returns the count that all rows share; raises ValueError naming the first row that has another."""
    width = int(counts[0]) if len(counts) else 1
    others = (counts != width).nonzero()
    if len(others):
        row = int(others[0])
        raise ValueError(
            f"with fixed k every row has as many slots as row 0, {width}; row {row} has {int(counts[row])}: "
            "pack(..., ragged=True) takes rows of any number"
        )
    if width == 0:
        raise ValueError("with fixed k every row needs at least one slot; row 0 has none")
    return width


def _check_dense(dense: Tensor, mask: Tensor) -> None:
    """Raises ValueError or TypeError unless a table [N, d] and its mask can be packed."""
    if dense.dtype not in FLOATS or mask.dtype != torch.bool:
        raise TypeError(f"pack takes floats and a bool mask, not {dense.dtype} and {mask.dtype}")
    if dense.dim() != 2 or dense.shape != mask.shape:
        raise ValueError(f"pack takes a table [N, d] and a mask of it, not {shape(dense)} and {shape(mask)}")


def _check_dtypes(packed: PackedRows) -> None:
    """Raises TypeError unless values, columns, offsets and scales have the dtypes of a packed table."""
    integers = packed.values.dtype == torch.int8
    if integers != (packed.scale is not None) or not (integers or packed.values.dtype in FLOATS):
        scaled = "without" if packed.scale is None else "with"
        raise TypeError(f"packed values are floats, or int8 with scale; not {packed.values.dtype} {scaled}")
    wanted = {"columns": column_dtype(packed.dim), "offsets": torch.int64, "scale": torch.float32}
    for name, dtype in wanted.items():
        tensor = getattr(packed, name)
        if tensor is not None and tensor.dtype != dtype:
            raise TypeError(f"{name} of rows {packed.dim} wide must be {dtype}, not {tensor.dtype}")
