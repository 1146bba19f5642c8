"""The encoder's learning rate, counted in updates of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from effrec_cli.optim import learning_rate
from effrec_cli.schema import OptimizerConfig


class EncoderRate:
    """Sets the encoder's rate before each of its updates, which may be rarer than the filter's, or more.

    Warm-up counts the encoder's own updates; a decay after it follows the run's progress.

    Args:
        settings: the filter's optimizer, whose schedule the encoder follows.
        peak: the encoder's own peak rate.
        warmup_steps: the encoder's own, in its updates.

    Attributes:
        steps: updates of the encoder so far.
        optimizer: what moves it; None where nothing does.
    """

    def __init__(self, settings: OptimizerConfig, peak: float, warmup_steps: int) -> None:
        self._settings = replace(settings, lr=peak, warmup_steps=warmup_steps)
        self.steps = 0
        self.optimizer: torch.optim.Optimizer | None = None

    def set(self, engine: Any) -> None:
        """Gives the optimizer the rate of the coming update."""
        if self.optimizer is None:
            return
        warming = self.steps < self._settings.warmup_steps or self._settings.schedule == "noam"
        at = self.steps if warming else max(engine.steps, self._settings.warmup_steps)
        rate = learning_rate(at, engine.total_steps, self._settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def stepped(self) -> None:
        """Counts an update."""
        self.steps += 1
