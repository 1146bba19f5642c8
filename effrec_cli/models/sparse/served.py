"""Tables of vectors as they are kept and served: packed or dense, in 32, 16 or 8 bits; they do not train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from effrec_kernels.packed import PackedRows, pack, unpack
from torch import Tensor, nn

from effrec_cli.models.sparse.choose import largest_of_rows, limit
from effrec_cli.models.sparse.half import restore_layers
from effrec_cli.models.sparse.start import budget, row_blocks
from effrec_cli.models.sparse.tables import IdTable, MaskedTable, PackedTable, Shape

VALUES = ("fp32", "bf16", "int8")
_LARGEST = 127
_PARTS = ("table", "values", "columns", "offsets", "scale")


class ServedTable(IdTable):
    """A table that is read and does not train.

    What it holds stands in a run's `model.safetensors` under these names.

    Attributes:
        table: [N, d] of a dense one, float32, bfloat16 or int8; else None.
        values: of a packed one, as `PackedRows` has them; else None.
        columns: likewise.
        offsets: likewise.
        scale: float32 [N] that int8 numbers are multiplied by, row by row; else None.
    """

    table: Tensor | None
    values: Tensor | None
    columns: Tensor | None
    offsets: Tensor | None
    scale: Tensor | None
    trained = False

    def __init__(self, dim: int, parts: Mapping[str, Tensor]) -> None:
        first = parts.get("table", parts.get("offsets", parts.get("values")))
        assert first is not None
        super().__init__(Shape(len(first) - ("offsets" in parts and "table" not in parts), dim))
        for name in _PARTS:
            self.register_buffer(name, parts.get(name))

    @property
    def packed(self) -> PackedRows | None:
        """The table as kernels take it; None where it is dense."""
        if self.values is None:
            return None
        assert self.columns is not None
        return PackedRows(self.values, self.columns, self.shape.dim, self.offsets, self.scale)

    @property
    def live(self) -> int:
        """How many numbers it stores."""
        numbers = self.table if self.table is not None else self.values
        assert numbers is not None
        return numbers.numel()

    @property
    def live_by_row(self) -> Tensor:
        """How many numbers of each row it stores, int64 [N]."""
        if self.offsets is not None:
            return self.offsets.diff()
        return torch.full((self.shape.rows,), self.live // max(1, self.shape.rows))

    @property
    def weights(self) -> nn.Parameter:
        """Raises TypeError: there is nothing to train."""
        raise TypeError("a served table does not train")

    @torch.no_grad()
    def look_up(self, rows: Tensor) -> Tensor:
        """Returns vectors float32 of rows."""
        packed = self.packed
        if packed is not None:
            return unpack(packed, rows).float()
        assert self.table is not None
        found = self.table[rows].float()
        return found if self.scale is None else found * self.scale[rows][..., None]


def served(
    table: IdTable, values: str = "fp32", density: float | None = None, structure: str = "row"
) -> ServedTable:
    """Returns a table as it is served.

    Args:
        table: that trains; dense, packed or masked, which is then packed.
        values: `fp32`, `bf16` or `int8`, what its numbers are rounded to.
        density: keep so large a share of a dense table's numbers, the largest ones; of a packed one's, whose
            rows are of one size, those of each row; None keeps all.
        structure: whether as many in each `row`, or anywhere.
    """
    if isinstance(table, PackedTable):
        packed = replace(table.packed, values=table.values.detach())
        if density is not None:
            packed = narrowed(packed, budget(1, packed.dim, density, "row"))
    elif isinstance(table, MaskedTable):
        packed = pack(table.table.detach(), table.mask, ragged=table.shape.structure != "row")
    elif density is None:
        return served_vectors(table.weights.detach(), values)
    else:
        packed = pruned(table.weights.detach(), density, structure)
    parts = {"values": packed.values, "columns": packed.columns, "offsets": packed.offsets}
    there = {name: tensor for name, tensor in parts.items() if tensor is not None}
    return ServedTable(packed.dim, _rounded(there, values))


def served_vectors(vectors: Tensor, values: str = "fp32") -> ServedTable:
    """Returns a dense table of vectors float32 [N, d], its numbers rounded to `values`."""
    return ServedTable(vectors.shape[1], _rounded({"table": vectors}, values))


def narrowed(packed: PackedRows, width: int) -> PackedRows:
    """Returns the `width` largest numbers of rows of one size, of equals the first; fewer where there are."""
    order = packed.values.abs().sort(dim=1, descending=True, stable=True).indices[:, :width]
    kept = order.sort(dim=1).values
    return replace(packed, values=packed.values.gather(1, kept), columns=packed.columns.gather(1, kept))


def pruned(table: Tensor, density: float, structure: str) -> PackedRows:
    """Returns the largest numbers of a dense table [N, d], of equals the first: magnitude pruning."""
    rows, dim = table.shape
    spans, live = row_blocks(rows, dim), budget(rows, dim, density, structure)
    if structure == "row":
        masks = [largest_of_rows(table[low:high], live // rows) for low, high in spans]
    else:

        def sizes() -> Iterator[Tensor]:
            return (table[low:high].abs().flatten() for low, high in spans)

        marks = limit(sizes, live, largest=True).taken(sizes())
        masks = [mark.view(-1, dim) for mark in marks]
    return pack(table, torch.cat(masks), ragged=structure != "row")


def _rounded(parts: dict[str, Tensor], values: str) -> dict[str, Tensor]:
    """Returns the parts of a served table with its numbers in fewer bits."""
    name = "table" if "table" in parts else "values"
    numbers = parts[name]
    if values == "fp32":
        return parts
    if values == "bf16":
        return {**parts, name: numbers.bfloat16()}
    tops = _tops(numbers, parts.get("offsets")) / _LARGEST
    scale = torch.where(tops > 0, tops, 1.0)
    offsets = parts.get("offsets")
    each = scale if offsets is None else scale.repeat_interleave(offsets.diff())
    whole = (numbers / each[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return {**parts, name: whole, "scale": scale}


def _tops(numbers: Tensor, offsets: Tensor | None) -> Tensor:
    """Returns the largest size in each row, float32 [N]; 0 for a row without numbers."""
    if offsets is None:
        return numbers.abs().amax(1)
    return torch.segment_reduce(numbers[:, 0].abs(), "max", offsets=offsets, initial=0.0)


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts what a kept network has for tables and layers, as served, in the place of those that train."""
    restore_layers(model, state)
    for name, table in model.named_children():
        if isinstance(table, IdTable):
            parts = {part: state[f"{name}.{part}"] for part in _PARTS if f"{name}.{part}" in state}
            setattr(model, name, ServedTable(table.shape.dim, parts))
