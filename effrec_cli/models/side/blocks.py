"""Side-adapter blocks of several towers, run as batched products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.side.ladder import Ladder
from effrec_cli.models.side.plan import Segment, Tower

TEMPERATURE = 0.1
INIT_STD = 0.01


class TowerBlocks(nn.Module):
    """A segment's gates and blocks, the towers of each tap at once.

    A block adds to what it reads a projection to a small rank, an activation and a projection back (papers/
    iisan section 1.3). An intra tower's block reads g h + (1 - g) a, of the fresh tap h and its state a; the
    inter tower's a + g v + (1 - g) t, of image v and text t (section 1.5); g is the sigmoid of one parameter
    a tower and tap over a temperature of 0.1 (section 1.4). Ungated, they read a + h and a + v + t.

    Each block is two batched products over all towers; see `Ladder`. Biases and gates have one dimension, so
    that no optimizer decays them; weights start as N(0, 0.01^2), biases and gates at 0.

    Args:
        segment: the towers T, and taps K of each.
        rank: width r between the projections.
        activation: `relu` or `gelu`.
        gated: whether there are gates.

    Attributes:
        down: [K, T, D, r]; `down_bias` [K * T * r].
        up: [K, T, r, D]; `up_bias` [K * T * D].
        gates: [K * T], None where ungated.
    """

    base: Tensor
    slope: Tensor
    intra: Tensor

    def __init__(self, segment: Segment, rank: int, activation: str, gated: bool) -> None:
        super().__init__()
        towers, taps, width = len(segment.towers), segment.taps, segment.towers[0].width
        self.shape, self.activation = (taps, towers), activation
        self.down = nn.Parameter(torch.empty(taps, towers, width, rank).normal_(std=INIT_STD))
        self.down_bias = nn.Parameter(torch.zeros(taps * towers * rank))
        self.up = nn.Parameter(torch.empty(taps, towers, rank, width).normal_(std=INIT_STD))
        self.up_bias = nn.Parameter(torch.zeros(taps * towers * width))
        self.gates = nn.Parameter(torch.zeros(taps * towers)) if gated else None
        shares = [_shares(tower, segment.feeds, gated) for tower in segment.towers]
        constants = {
            "base": torch.tensor([base for base, _ in shares]),
            "slope": torch.tensor([slope for _, slope in shares]),
            "intra": torch.tensor([float(gated and len(tower.reads) == 1) for tower in segment.towers]),
        }
        for name, values in constants.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, taps: Tensor, start: Tensor | None = None) -> Tensor:
        """Returns the towers' last states [T, n, D], in the weights' precision.

        Args:
            taps: [K, F, n, D] in the weights' precision, what the segment's feeds give at each tap.
            start: [T, n, D], the towers' states before the first block; None is 0.
        """
        opened = self.opened()
        mix = torch.addcmul(self.base, opened[..., None], self.slope)
        carry = torch.addcmul(torch.ones_like(opened), opened, self.intra, value=-1)[..., None, None]
        down_bias, up_bias = (bias.view(*self.shape, 1, -1) for bias in (self.down_bias, self.up_bias))
        # What a block adds to all items alike goes into what the next one reads.
        shift = carry * F.pad(up_bias[:-1], (0, 0, 0, 0, 0, 0, 1, 0))
        weights = (self.down, down_bias, self.up)
        low = _product_dtype(taps)
        state = Ladder.apply(taps, mix, shift, carry, start, *weights, self.activation, low)
        return state + up_bias[-1]

    def opened(self) -> Tensor:
        """Returns the gates' values g [K, T]; 1 where ungated."""
        if self.gates is None:
            return self.down.new_ones(self.shape)
        return torch.sigmoid(self.gates / TEMPERATURE).view(self.shape)


def _product_dtype(taps: Tensor) -> torch.dtype:
    """Returns the precision that autocast asks for, or the taps'."""
    device = taps.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else taps.dtype


def _shares(tower: Tower, feeds: tuple[str, ...], gated: bool) -> tuple[list[float], list[float]]:
    """Returns the feeds' shares in a tower's input at gate 0, and what a gate at 1 adds to them, [F] each."""
    reads = [[float(feed == read) for feed in feeds] for read in tower.reads]
    none = [0.0] * len(feeds)
    if not gated:
        return [sum(each) for each in zip(*reads, strict=True)], none
    text, image = reads if len(reads) == 2 else (none, reads[0])
    return text, [after - before for before, after in zip(text, image, strict=True)]
