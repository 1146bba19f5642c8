"""Which validation was the best, and when to stop hoping for a better one."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from effrec_cli.errors import NonFiniteError, unknown_name
from effrec_cli.schema.protocols import is_rising


class Selection:
    """Follows one validation metric; higher is better.

    Args:
        monitor: its name.
        patience: validations without improvement before `exhausted`; None for no end.

    Attributes:
        metrics: all metrics of the best validation; empty before the first.
        step: the step it was made at, or None.
        weights: the weights it was made with, on the CPU.
        without_gain: validations since.
    """

    def __init__(self, monitor: str, patience: int | None) -> None:
        self.monitor, self.patience = monitor, patience
        self.metrics: dict[str, float] = {}
        self.step: int | None = None
        self.weights: dict[str, Tensor] | None = None
        self.without_gain = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.without_gain >= self.patience

    def score(self, metrics: dict[str, float]) -> float:
        """Returns the monitored metric.

        Raises:
            ConfigError: no such metric.
            NonFiniteError: it is not a finite number.
        """
        if self.monitor not in metrics:
            rising = [name for name in metrics if is_rising(name)]
            raise unknown_name("validation metric", self.monitor, rising, where="evaluation.monitor")
        value = metrics[self.monitor]
        if not math.isfinite(value):
            raise NonFiniteError(
                f"The validation metric {self.monitor} is {value}.", where="evaluation.monitor"
            )
        return value

    def improves(self, metrics: dict[str, float], step: int) -> bool:
        """Takes in a validation; returns whether it is the best so far, whose weights are to be kept."""
        if self.step is not None and self.score(metrics) <= self.score(self.metrics):
            self.without_gain += 1
            return False
        self.metrics, self.step, self.without_gain = dict(metrics), step, 0
        return True

    def state(self) -> dict[str, Any]:
        """Returns JSON-able state; the weights are kept apart."""
        return {"metrics": self.metrics, "step": self.step, "without_gain": self.without_gain}

    def load(self, state: dict[str, Any], weights: dict[str, Tensor] | None) -> None:
        """Takes `state` and weights back."""
        self.metrics, self.step = state["metrics"], state["step"]
        self.without_gain, self.weights = state["without_gain"], weights
