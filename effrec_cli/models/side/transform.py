"""The wider modality's taps brought to the other's width, for the tower that reads both."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def xavier(count: int, inputs: int, outputs: int) -> nn.Parameter:
    """Returns matrices [count, inputs, outputs], each N(0, 2 / (inputs + outputs))."""
    std = math.sqrt(2 / (inputs + outputs))
    return nn.Parameter(torch.empty(count, inputs, outputs).normal_(std=std))


class WidthTransform(nn.Module):
    """Linear maps of K taps from width D to width d (papers/iisan sections 1.10 and 7.3).

    Args:
        taps: K.
        wide: D.
        width: d.
        kind: `separate`, one matrix a tap; `shared`, one for all; `low_rank`, two a tap, by way of `rank`.
        rank: width between the two.
    """

    def __init__(self, taps: int, wide: int, width: int, kind: str, rank: int) -> None:
        super().__init__()
        self.taps, self.kind = taps, kind
        maps = 1 if kind == "shared" else taps
        self.lower = xavier(maps, wide, rank) if kind == "low_rank" else None
        self.weight = xavier(maps, rank if kind == "low_rank" else wide, width)
        self.bias = nn.Parameter(torch.zeros(maps * width))

    def forward(self, taps: Tensor) -> Tensor:
        """Returns [K, n, d] of taps [K, n, D]."""
        if self.lower is not None:
            taps = torch.bmm(taps, self.lower)
        weight = self.weight.expand(self.taps, -1, -1)
        return torch.baddbmm(self.bias.view(len(self.weight), 1, -1), taps, weight)
