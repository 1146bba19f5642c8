"""Sums of what training steps report, kept on the device until somebody looks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effrec_cli.distributed import World


class Totals:
    """Adds up named scalars over steps.

    Every scalar is one micro-batch's part of its step's value (as a loss divided by the whole step's targets
    is), so that parts add up over micro-batches and ranks.

    Args:
        world: whose ranks share a step.

    Attributes:
        steps: steps since the last `take`.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[str, Tensor] = {}
        self._marked: dict[str, Tensor] = {}
        self.steps = 0

    def mark(self) -> None:
        """Remembers the sums as a step begins, for `take_back`."""
        self._marked = {name: total.clone() for name, total in self._sums.items()}

    def take_back(self) -> None:
        """Forgets what was added since `mark`."""
        self._sums = self._marked

    def add(self, parts: dict[str, Tensor]) -> None:
        """Adds one micro-batch's scalars, without waiting for the device."""
        for name, part in parts.items():
            self._sum(name).add_(part.detach())

    def step_done(self) -> None:
        """Counts a step."""
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Returns the means over the steps since the last call, over all ranks, and starts anew."""
        names = self._world.union(self._sums)
        values = self._read(names)
        steps = max(1, self.steps)
        self._sums, self.steps = {}, 0
        return {name: value / steps for name, value in zip(names, values, strict=True)}

    def state(self) -> dict[str, Any]:
        """Returns JSON-able state over all ranks; every rank must call it, unless no step was made."""
        if not self.steps:
            return {"steps": 0, "sums": {}}
        names = self._world.union(self._sums)
        return {"steps": self.steps, "sums": dict(zip(names, self._read(names), strict=True))}

    def load(self, state: dict[str, Any]) -> None:
        """Takes `state` back; rank 0 carries what all ranks had."""
        self.steps = state["steps"]
        self._sums = {}
        if self._world.is_main:
            for name, value in state["sums"].items():
                self._sum(name).fill_(value)

    def _sum(self, name: str) -> Tensor:
        if name not in self._sums:
            self._sums[name] = torch.zeros((), dtype=torch.float64, device=self._world.device)
        return self._sums[name]

    def _read(self, names: list[str]) -> list[float]:
        if not names:
            return []
        together = torch.stack([self._sum(name) for name in names])
        self._world.sum_([together])
        return together.tolist()
