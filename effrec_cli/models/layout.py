"""How the windows of a batch lie in memory while a Transformer reads them: with padding, or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.models.ragged import Heads, ragged_attention
from effrec_cli.models.rectangles import Rectangle, fitted


class Layout(Protocol):
    """Where each item's state is: states are [B, L, D] or [T, D]."""

    @property
    def columns(self) -> Tensor:
        """Each item's place in its window, int64 [L] or [T]."""

    @property
    def real(self) -> Tensor | None:
        """Which states are of items and not of padding, bool [B, L] or [T]; None where all are."""

    def pick(self, inputs: Tensor) -> Tensor:
        """Returns the items of [B, L] in the order of the states."""
        ...

    def attend(self, heads: Heads, *, causal: bool, dropout: float) -> Tensor:
        """Returns what each item reads in its own window, [..., H, D / H]; padding is never read.

        Args:
            heads: queries, keys, values.
            causal: whether an item reads only itself and what came before it.
            dropout: share of weights dropped.
        """
        ...

    def states(self, hidden: Tensor, places: Tensor | None) -> Tensor:
        """Returns the states [m, D] at some flat places of [B, L]; of all, in this order, where None."""
        ...


@dataclass(frozen=True)
class Padded:
    """Windows below each other, as wide as the batch: states [B, L, D].

    Attributes:
        columns: int64 [L].
        real: bool [B, L].
    """

    columns: Tensor
    real: Tensor

    @classmethod
    def of(cls, inputs: Tensor, lengths: Tensor) -> Padded:
        """Returns the layout of `inputs` [B, L], of which the first `lengths` [B] are real."""
        columns = torch.arange(inputs.shape[1], device=inputs.device)
        return cls(columns, columns < lengths[:, None])

    def pick(self, inputs: Tensor) -> Tensor:
        """Returns `inputs` [B, L]."""
        return inputs

    def attend(self, heads: Heads, *, causal: bool, dropout: float) -> Tensor:
        """Returns [B, L, H, D / H]; causality alone hides padding, which is on the right of all items."""
        mask = None if causal else self.real[:, None, None, :]
        return _attend(heads, mask, causal, dropout)

    def states(self, hidden: Tensor, places: Tensor | None) -> Tensor:
        """Returns the states at `places`, [m, D]; all, [B, L, D], where None."""
        return hidden if places is None else hidden.flatten(0, 1).index_select(0, places)


@dataclass(frozen=True)
class Bucketed:
    """Windows sorted by length into a few rectangles, each as wide as its longest: states [T, D].

    The rectangles stand behind each other, so that what looks at one item alone runs over all of them at
    once and attention sees each as a view.

    Attributes:
        tokens: int64 [T], flat places in [B, L].
        columns: int64 [T].
        real: bool [T].
        rectangles: their windows and widths.
        first: int64 [B], where each window starts among the T.
        width: L.
    """

    tokens: Tensor
    columns: Tensor
    real: Tensor
    rectangles: list[Rectangle]
    first: Tensor
    width: int

    @classmethod
    def of(cls, inputs: Tensor, lengths: Tensor) -> Bucketed:
        """Returns the layout of `inputs` [B, L]; waits for the device, which has to tell the lengths."""
        count, width = inputs.shape
        ordered, order = lengths.sort(stable=True)
        rectangles = fitted(ordered.tolist(), width)
        shape = torch.tensor(rectangles, device=inputs.device)
        widths = shape[:, 1].repeat_interleave(shape[:, 0], output_size=count)
        ends = widths.cumsum(0)
        size = sum(windows * wide for windows, wide in rectangles)
        window = torch.arange(count, device=inputs.device).repeat_interleave(widths, output_size=size)
        columns = torch.arange(size, device=inputs.device) - (ends - widths)[window]
        first = torch.empty_like(order).scatter_(0, order, ends - widths)
        real = columns < ordered[window]
        return cls(order[window] * width + columns, columns, real, rectangles, first, width)

    def pick(self, inputs: Tensor) -> Tensor:
        """Returns the items [T]."""
        return inputs.flatten().index_select(0, self.tokens)

    def attend(self, heads: Heads, *, causal: bool, dropout: float) -> Tensor:
        """Returns [T, H, D / H]."""
        sizes = [windows * wide for windows, wide in self.rectangles]
        real = self.real.split(sizes)
        parts = zip(*(each.split(sizes) for each in heads), strict=True)
        mixed = [
            _attend_rectangle(part, rectangle, None if causal else mask, causal, dropout)
            for part, rectangle, mask in zip(parts, self.rectangles, real, strict=True)
        ]
        return torch.cat(mixed)

    def states(self, hidden: Tensor, places: Tensor | None) -> Tensor:
        """Returns the states at `places`, [m, D]."""
        if places is None:
            return hidden
        return hidden.index_select(0, self.first[places // self.width] + places % self.width)


@dataclass(frozen=True)
class Packed:
    """Windows behind each other without any padding: states [T, D], for kernels that take such.

    Attributes:
        tokens: int64 [T], flat places in [B, L] of all real items.
        columns: int64 [T].
        offsets: int64 [B + 1], where windows start among the T.
        width: L, at least the longest window.
    """

    tokens: Tensor
    columns: Tensor
    offsets: Tensor
    width: int
    real: None = None

    @classmethod
    def of(cls, inputs: Tensor, lengths: Tensor, tokens: Tensor) -> Packed:
        """Returns the layout of `inputs` [B, L] whose real items are at `tokens`; asks the device nothing."""
        width = inputs.shape[1]
        return cls(tokens, tokens % width, F.pad(lengths.cumsum(0), (1, 0)), width)

    def pick(self, inputs: Tensor) -> Tensor:
        """Returns the items [T]."""
        return inputs.flatten().index_select(0, self.tokens)

    def attend(self, heads: Heads, *, causal: bool, dropout: float) -> Tensor:
        """Returns [T, H, D / H]."""
        return ragged_attention(heads, self.offsets, self.width, causal=causal, dropout=dropout)

    def states(self, hidden: Tensor, places: Tensor | None) -> Tensor:
        """Returns the states at `places`, [m, D]."""
        if places is None or places is self.tokens:
            return hidden
        return hidden.index_select(0, self.offsets[places // self.width] + places % self.width)


def _attend(heads: Heads, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """Returns attention over [n, w, H, D / H] heads."""
    q, k, v = (each.transpose(1, 2) for each in heads)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    return mixed.transpose(1, 2)


def _attend_rectangle(
    heads: tuple[Tensor, ...], rectangle: Rectangle, real: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """Returns attention over one rectangle's heads, [n * w, H, D / H] each."""
    q, k, v = (each.unflatten(0, rectangle) for each in heads)
    mask = None if real is None else real.view(rectangle)[:, None, None, :]
    return _attend((q, k, v), mask, causal, dropout).flatten(0, 1)
