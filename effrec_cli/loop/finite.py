"""Notices non-finite losses and gradients on the device, without waiting for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effrec_cli.precision import LossScaler

_CAUSES = {1: "loss", 2: "gradient"}


@dataclass(frozen=True)
class Failure:
    """The first step that went wrong, and whether its `loss` or its `gradient` did."""

    step: int
    cause: str


class FiniteGuard:
    """A sticky flag on the device: once a loss or a gradient norm is not finite, no update happens any more.

    Weights therefore stay as they were when it happened, although the host learns of it only when it asks.
    Under fp16 an overflow is normal: its step is skipped, and the flag is set only once the scale runs out.

    Args:
        device: where losses and gradients are.
        scaler: the loss scaler of fp16, else None.

    Attributes:
        loss: float32 scalar, sum of the losses seen since the last check.
        found_inf: float32 scalar, 1.0 where the coming update must not happen; what fused optimizers read.
    """

    def __init__(self, device: torch.device, scaler: LossScaler | None = None) -> None:
        self.loss = torch.zeros((), device=device)
        self.found_inf = torch.zeros((), device=device)
        self._scaler = scaler
        self._first = torch.full((), -1, dtype=torch.int64, device=device)
        self._cause = torch.zeros((), dtype=torch.int64, device=device)

    def saw(self, loss: Tensor) -> None:
        """Adds a micro-batch's loss to what the next `check` looks at."""
        self.loss += loss.detach()

    def forget(self) -> None:
        """Forgets the losses seen since the last check: their step is given up."""
        self.loss.zero_()

    def check(self, norm: Tensor, step: int) -> None:
        """Decides whether the update of `step` may happen, from the losses seen and the gradient norm."""
        seen = torch.stack([self.loss, norm])
        bad_loss, bad_norm = ((seen - seen) != 0).unbind()  # NaN but for finite numbers; fewer kernels
        bad = bad_loss | bad_norm
        final = bad & self._scaler.update(bad) if self._scaler else bad
        fresh = final & (self._first < 0)
        self._first.masked_fill_(fresh, step)
        self._cause.masked_fill_(fresh, 2).masked_fill_(fresh & bad_loss, 1)
        self.found_inf.copy_(bad | (self._first >= 0))
        self.loss.zero_()

    def failure(self) -> Failure | None:
        """Returns the first failure, or None; this waits for the device."""
        step, cause = torch.stack([self._first, self._cause]).tolist()
        return None if step < 0 else Failure(step, _CAUSES[cause])
