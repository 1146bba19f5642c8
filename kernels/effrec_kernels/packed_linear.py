"""Softmax cross-entropy over every row of a packed table: a block of it is dense at a time, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import chunks
from .arguments import chunk_room, compute_dtype
from .checks import check_beside, check_plain, check_reduction, check_row_weights, check_temperature
from .evaluate import Reduction
from .full import put_
from .looks import check_targets
from .objectives import softmax_loss
from .packed import PackedRows, unpack
from .packed_lookup import Scores, at_slots
from .products import add_product_, divide_, mm, row_dots
from .row_sparse import RowSparse
from .tensors import FLOATS, INTEGERS, check_tensor, shape


def packed_linear_cross_entropy(
    hidden: Tensor,
    packed: PackedRows,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    scores: Scores | None = None,
    chunk_bytes: int | None = None,
) -> Tensor:
    """Returns `linear_cross_entropy(hidden, unpack(packed), targets)` without [N, d] or [M, N] in any pass.

    A block of rows is unpacked for its logits and a running log-sum-exp. Backward does so again, and reads
    the block's gradient where it has slots. `packed.values` get a dense gradient: every slot has one.

    Args:
        hidden: [M, d], float16, bfloat16, float32 or float64.
        packed: the items; no second derivative is made.
        targets: int [M] in [0, N), or `ignore_index`.
        temperature: divides the logits.
        row_weights: [M], multiplies rows' losses.
        ignore_index: marks rows without loss, whatever their state holds.
        reduction: `mean` over rows with a target (0 if there are none), `sum` or `none` for [M].
        normalizer: divides the sum in place of the count.
        scores: called in backward for each block with its dense gradient, a `RowSparse` of [N, d] with rows
            rising: what slots to grow are ranked by. Blocks together hold every row once.
        chunk_bytes: bound on the bytes of logits and dense rows alive at a time; None suits the device.

    Returns:
        float32 (float64 for float64 states): a number, or [M] for `none`. Operands are rounded to autocast's
        dtype where it is on, else to that of `hidden`; the softmax runs in float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or options do not fit. IndexError: a target is no row (looked
            for on a CPU; on CUDA with EFFREC_DEBUG=1).
    """
    check_reduction(reduction, normalizer)
    _check(hidden, packed, targets, row_weights)
    check_targets(targets, ignore_index, packed.num_rows)
    form = _Form(
        check_temperature(temperature), compute_dtype(hidden), chunk_room(chunk_bytes, hidden.device), scores
    )
    counted = targets != ignore_index
    with torch.autocast(hidden.device.type, enabled=False):
        loss = _Softmax.apply(hidden, packed.values, packed, targets.long(), counted, form)
        return Reduction(reduction, row_weights, normalizer)(loss, counted)


@dataclass(frozen=True)
class _Form:
    """How it is computed.

    Attributes:
        temperature: t.
        rounded: what operands are rounded to.
        room: bytes of a block.
        scores: see `packed_linear_cross_entropy`.
    """

    temperature: float
    rounded: torch.dtype
    room: int
    scores: Scores | None

    def working(self, tensor: Tensor) -> Tensor:
        """Returns operands of products (see `Problem.working_dtype`)."""
        tensor = tensor.to(self.rounded)
        return tensor if tensor.is_cuda else tensor.to(self.summed)

    @property
    def summed(self) -> torch.dtype:
        """What logits and gradients are summed in."""
        return torch.float64 if self.rounded == torch.float64 else torch.float32


class _Softmax(torch.autograd.Function):
    """Rows' losses [M], 0 where they do not count."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        values: Tensor,
        packed: PackedRows,
        targets: Tensor,
        counted: Tensor,
        form: _Form,
    ) -> Tensor:
        targets = targets.masked_fill(~counted, 0)
        states = form.working(hidden).masked_fill(~counted[:, None], 0)
        catalogue = _Catalogue(states, replace(packed, values=values.detach()), targets, form)
        positive = catalogue.positives()
        peak, others = catalogue.weights(positive)
        ctx.save_for_backward(
            states,
            values,
            packed.columns,
            packed.offsets,
            packed.scale,
            targets,
            counted,
            positive,
            peak,
            others,
        )
        ctx.dim, ctx.form, ctx.of_hidden = packed.dim, form, hidden.dtype
        return softmax_loss(positive, peak, others).masked_fill(~counted, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, values, columns, offsets, scale, targets, counted, positive, peak, others = ctx.saved_tensors
        packed = PackedRows(values.detach(), columns, ctx.dim, offsets, scale)
        catalogue = _Catalogue(states, packed, targets, ctx.form)
        upstream = upstream.masked_fill(~counted, 0) / ctx.form.temperature
        share = upstream / (torch.exp(positive - peak) + others)
        slopes = _Slopes(peak, share, -share * others)
        of_states, of_values = catalogue.gradients(slopes, *ctx.needs_input_grad[:2])
        of_hidden = None if of_states is None else of_states.to(ctx.of_hidden)
        return of_hidden, of_values, None, None, None, None


@dataclass(frozen=True)
class _Slopes:
    """What logits are turned into their gradients by.

    Attributes:
        peak: [M], taken off them.
        share: [M], multiplies their exponentials.
        of_positive: [M], the gradients of the targets'.
    """

    peak: Tensor
    share: Tensor
    of_positive: Tensor


@dataclass(frozen=True)
class _Catalogue:
    """Logits of rows and all items, a block of items and of rows at a time.

    Attributes:
        states: [M, d] in the working dtype.
        packed: the items.
        targets: int64 [M].
        form: how it is computed.
    """

    states: Tensor
    packed: PackedRows
    targets: Tensor
    form: _Form

    def positives(self) -> Tensor:
        """Returns the targets' logits [M]."""
        found = torch.empty(len(self.targets), dtype=self.form.summed, device=self.states.device)
        for some in chunks.slices(len(found), chunks.BLOCK_ROWS):
            found[some] = row_dots(self._unpacked(self.targets[some]), self.states[some])
        return divide_(found, self.form.temperature)

    def weights(self, positive: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the largest logit [M], and the others' exponentials, less that, summed [M]."""
        peak, others = positive.clone(), torch.zeros_like(positive)
        for items, table in self._blocks():
            for rows in self._rows():
                logits, before = self._others(items, table, rows), peak[rows]
                higher = torch.maximum(before, logits.amax(dim=1))
                sums = logits.sub_(higher[:, None]).exp_().sum(dim=1)
                others[rows] = others[rows] * (before - higher).exp_() + sums
                peak[rows] = higher
        return peak, others

    def gradients(
        self, slopes: _Slopes, by_states: bool, by_values: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the gradients by states [M, d] and by the table's values, where wanted."""
        of_states = torch.zeros_like(self.states, dtype=self.form.summed) if by_states else None
        of_values = torch.empty_like(self.packed.values) if by_values else None
        for items, table in self._blocks():
            of_block = torch.zeros_like(table, dtype=self.form.summed) if by_values else None
            for rows in self._rows():
                logits = self._others(items, table, rows)
                weights = logits.sub_(slopes.peak[rows, None]).exp_().mul_(slopes.share[rows, None])
                pushed = put_(weights, self.targets[rows], items, slopes.of_positive[rows]).to(table.dtype)
                if of_states is not None:
                    add_product_(of_states[rows], pushed, table)
                if of_block is not None:
                    add_product_(of_block, pushed.t(), self.states[rows])
            if of_values is not None and of_block is not None:
                self._take(of_values, items, of_block)
        return of_states, of_values

    def _take(self, of_values: Tensor, items: slice, of_block: Tensor) -> None:
        """Writes the gradient of a block's slots, and tells that of the block."""
        numbers = torch.arange(items.start, items.stop, device=of_block.device)
        given = RowSparse(numbers, of_block, self.packed.num_rows)
        found = at_slots(self.packed, given, once=True)
        offsets = self.packed.offsets
        span = items if offsets is None else slice(int(offsets[items.start]), int(offsets[items.stop]))
        of_values[span] = found.values
        if self.form.scores is not None:
            self.form.scores(given)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of items with their dense rows [n, d] in the working dtype."""
        number = self.form.summed.itemsize
        rows = min(len(self.states), chunks.BLOCK_ROWS)
        # Logits, the rows as they lie in the table and as they are multiplied, and their gradient.
        size = chunks.rows_at_once(self.form.room, number * (rows + 3 * self.packed.dim))
        for items in chunks.slices(self.packed.num_rows, size):
            yield items, self._unpacked(torch.arange(items.start, items.stop, device=self.states.device))

    def _unpacked(self, rows: Tensor) -> Tensor:
        return self.form.working(unpack(self.packed, rows, kernel="torch"))

    def _rows(self) -> Iterator[slice]:
        return chunks.slices(len(self.states), chunks.BLOCK_ROWS)

    def _others(self, items: slice, table: Tensor, rows: slice) -> Tensor:
        """Returns the logits [m, n] of a block, -inf at the rows' own targets."""
        logits = divide_(mm(self.states[rows], table.t()), self.form.temperature)
        return put_(logits, self.targets[rows], items, torch.full_like(logits[:, 0], float("-inf")))


def _check(hidden: Tensor, packed: PackedRows, targets: Tensor, row_weights: Tensor | None) -> None:
    """Raises ValueError or TypeError where shapes, dtypes or devices do not fit together."""
    check_plain("hidden", hidden)
    check_tensor("targets", targets)
    if hidden.dtype not in FLOATS or targets.dtype not in INTEGERS:
        raise TypeError(f"hidden must be floats and targets integers, not {hidden.dtype} and {targets.dtype}")
    if hidden.dim() != 2 or hidden.shape[1] != packed.dim or not packed.num_rows:
        raise ValueError(
            f"hidden must be [M, {packed.dim}], as wide as the packed rows, of which there is at least one, "
            f"not {shape(hidden)} beside {packed.num_rows} rows"
        )
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets must be [M] with M = {len(hidden)}, not {shape(targets)}")
    check_row_weights(row_weights, hidden)
    check_beside("packed", packed.values, hidden)
    check_beside("targets", targets, hidden)
