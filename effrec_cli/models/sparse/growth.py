"""What decides which numbers of a sparse table grow: gradients summed over some steps, or chance."""

from __future__ import annotations

import torch
from effrec_kernels import RowSparse
from torch import Tensor

_HEADROOM = 16
"""Sums of so many gradients of size 65,504, the largest float16, still fit."""


class GradientScores:
    """Sums of the dense gradients of some rows over a window of steps; implements `rewire.Scores`.

    What is summed is signed, and its size is the score: a number whose gradient only sways back and forth
    asks for nothing. Gradients of a step are held apart until it is done, so that one that is given up
    leaves nothing behind.

    Sums are kept in 16 bits, of which eleven are digits: they only rank numbers, and in 32 bits they would be
    larger than the table itself.

    Args:
        rows: N, of the whole table.
        dim: d.
        low: first row that is watched.
        high: the row after the last; so many rows of d float16 are held.
        device: where the table is.
    """

    def __init__(self, rows: int, dim: int, low: int, high: int, device: torch.device) -> None:
        self.rows, self.low, self.high = rows, low, high
        self.sums = torch.zeros(high - low, dim, dtype=torch.float16, device=device)
        self._of_step: list[RowSparse] = []

    def add(self, gradient: RowSparse) -> None:
        """Takes gradients [n, d] of rows of the table, each once."""
        inside = (gradient.rows >= self.low) & (gradient.rows < self.high)
        rows = gradient.rows[inside] - self.low
        self._of_step.append(RowSparse(rows, gradient.values[inside].float(), self.high - self.low))

    def settle(self, targets: int, scale: Tensor | None = None) -> None:
        """Sums what the step's micro-batches have left; gradients that are not finite count nothing.

        Args:
            targets: of the step, by which gradients were divided; they are summed as those of one target
                are, which 16 bits hold as well for large steps as for small ones.
            scale: what gradients were multiplied by; a scalar, or None.
        """
        most = torch.finfo(self.sums.dtype).max
        for part in self._of_step:
            values = part.values * (targets / _HEADROOM)
            if scale is not None:
                values = values / scale
            values = values.nan_to_num_(0, 0, 0).add_(self.sums.index_select(0, part.rows))
            self.sums.index_copy_(0, part.rows, values.clamp_(-most, most).to(self.sums.dtype))
        self._of_step = []

    def forget_step(self) -> None:
        """Drops what a step that is given up has left."""
        self._of_step = []

    @property
    def touched(self) -> Tensor:
        """Which rows of the table have a gradient, bool [N]."""
        found = torch.zeros(self.rows, dtype=torch.bool, device=self.sums.device)
        found[self.low : self.high] = self.sums.any(1)
        return found

    def block(self, low: int, high: int) -> Tensor:
        """Returns the sums' sizes in a unit of their own, float32 [high - low, d]; 0 for rows not watched."""
        made = self.sums.new_zeros((high - low, self.sums.shape[1]), dtype=torch.float32)
        first, last = max(low, self.low), min(high, self.high)
        if first < last:
            made[first - low : last - low] = self.sums[first - self.low : last - self.low].abs()
        return made


class RandomScores:
    """Any number as likely as another; implements `rewire.Scores`.

    Args:
        rows: N.
        dim: d.
        low: first row that may change.
        high: the row after the last.
        seed: of the draw, the same for all ranks.
        device: where the table is.
    """

    def __init__(self, rows: int, dim: int, low: int, high: int, seed: int, device: torch.device) -> None:
        self.dim, self.seed = dim, seed
        self.touched = torch.zeros(rows, dtype=torch.bool, device=device)
        self.touched[low:high] = True

    def block(self, low: int, high: int) -> Tensor:
        """Returns numbers in (0, 1], float32 [high - low, d], of the seed and the rows alone."""
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + low) % (1 << 63))
        return 1 - torch.rand(high - low, self.dim, generator=draw).to(self.touched.device)
