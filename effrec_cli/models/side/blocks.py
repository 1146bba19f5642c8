"""Side-adapter blocks of several towers, run as batched products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.side.plan import Segment, Tower
from effrec_cli.models.transformer import ACTIVATIONS

TEMPERATURE = 0.1
INIT_STD = 0.01


class TowerBlocks(nn.Module):
    """A segment's gates and blocks, the towers of each tap at once.

    A block adds to what it reads a projection to a small rank, an activation and a projection back (papers/
    iisan section 1.3). An intra tower's block reads g h + (1 - g) a, of the fresh tap h and its state a; the
    inter tower's a + g v + (1 - g) t, of image v and text t (section 1.5); g is the sigmoid of one parameter
    a tower and tap over a temperature of 0.1 (section 1.4). Ungated, they read a + h and a + v + t.

    All that is linear in the taps is one product before the first block, so that a block is a sum, two
    batched products and the activation. Biases and gates have one dimension, so that no optimizer decays
    them; weights start as N(0, 0.01^2), biases and gates at 0.

    Args:
        segment: the towers T, and taps K of each.
        rank: width r between the projections.
        activation: `relu` or `gelu`.
        gated: whether there are gates.

    Attributes:
        down: [T, K, D, r]; `down_bias` [T * K * r].
        up: [T, K, r, D]; `up_bias` [T * K * D].
        gates: [T * K], None where ungated.
    """

    base: Tensor
    slope: Tensor
    intra: Tensor

    def __init__(self, segment: Segment, rank: int, activation: str, gated: bool) -> None:
        super().__init__()
        towers, taps, width = len(segment.towers), segment.taps, segment.towers[0].width
        self.shape = (towers, taps)
        self.activation = ACTIVATIONS[activation]
        self.down = nn.Parameter(torch.empty(towers, taps, width, rank).normal_(std=INIT_STD))
        self.down_bias = nn.Parameter(torch.zeros(towers * taps * rank))
        self.up = nn.Parameter(torch.empty(towers, taps, rank, width).normal_(std=INIT_STD))
        self.up_bias = nn.Parameter(torch.zeros(towers * taps * width))
        self.gates = nn.Parameter(torch.zeros(towers * taps)) if gated else None
        shares = [_shares(tower, segment.feeds, taps, gated) for tower in segment.towers]
        intra = torch.tensor([float(gated and len(tower.reads) == 1) for tower in segment.towers])
        constants = {
            "base": torch.stack([base for base, _ in shares], 1),
            "slope": torch.stack([slope for _, slope in shares], 1),
            "intra": intra[None, :, None, None],
        }
        for name, values in constants.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, taps: Tensor, state: Tensor | None = None) -> Tensor:
        """Returns the towers' last states [T, n, D], in the weights' precision.

        Args:
            taps: [F * K, n, D], what the segment's feeds give at each tap, feed by feed, in the weights'
                precision.
            state: [T, n, D], the towers' states before the first block; None is 0.
        """
        mix, carry = self._mixed()
        with torch.autocast(taps.device.type, enabled=False):  # the states keep their precision
            inputs = self._inputs(taps, mix, carry)
        down_bias = self.down_bias.view(*self.shape, 1, -1).unbind(1)
        stages = zip(inputs, carry, self.down.unbind(1), down_bias, self.up.unbind(1), strict=True)
        for fresh, kept, down, bias, up in stages:
            read = fresh if state is None else torch.addcmul(fresh, kept, state)
            state = _added(read, self.activation(torch.baddbmm(bias, read, down)), up)
        assert state is not None
        return state + self.up_bias.view(*self.shape, 1, -1)[:, -1]

    def opened(self) -> Tensor:
        """Returns the gates' values g [T, K]; 1 where ungated."""
        if self.gates is None:
            return self.down.new_ones(self.shape)
        return torch.sigmoid(self.gates / TEMPERATURE).view(self.shape)

    def _mixed(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns each tap's share in what a block reads [K, T, F * K], and by tap its state's [T, 1, 1]."""
        opened = self.opened().t()[..., None]
        mix = torch.addcmul(self.base, opened, self.slope)
        return mix, (1 - opened[..., None] * self.intra).unbind(0)

    def _inputs(self, taps: Tensor, mix: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns by tap what a block reads beside the state: taps, and the bias of the block before it."""
        mixed = mix.flatten(0, 1) @ taps.flatten(1)
        mixed = mixed.view(*mix.shape[:2], *taps.shape[1:])
        up_bias = self.up_bias.view(*self.shape, 1, -1).transpose(0, 1)
        before = F.pad(up_bias[:-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return (mixed + torch.stack(carry) * before).unbind(0)


def _added(read: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """Returns what a block reads and its projection back; autocast rounds the second alone."""
    if hidden.dtype != read.dtype:
        return read + torch.bmm(hidden, up)
    return torch.baddbmm(read, hidden, up)


def _shares(tower: Tower, feeds: tuple[str, ...], taps: int, gated: bool) -> tuple[Tensor, Tensor]:
    """Returns taps' shares in a tower's input at gate 0, and what a gate at 1 adds, [K, F * K] each."""
    at = [torch.eye(taps * len(feeds)).unflatten(0, (-1, taps))[feeds.index(feed)] for feed in tower.reads]
    if not gated:
        return torch.stack(at).sum(0), torch.zeros_like(at[0])
    if len(at) == 1:
        return torch.zeros_like(at[0]), at[0]
    return at[0], at[1] - at[0]
