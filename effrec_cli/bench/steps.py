"""Steps of a content method without a run around them: its own encoder, filter, task, mode; a bare engine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from effrec_cli.data.batches import Batch, Batches, Share
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.loop.primitives import Primitives
from effrec_cli.methods.content.method import ContentMethod
from effrec_cli.methods.content.modes import Mode

MOST_MICROS = 64
"""Micro-batches into which a step is parted at most, until one of them fits."""

Made = TypeVar("Made")


class BareEngine(Primitives):
    """What modes ask of an engine: the primitives, and how long an epoch is.

    Args:
        optimizers: what moves the weights.
        device: where.
        precision: `auto`, `fp32` ...
        steps: of an epoch.
    """

    def __init__(
        self, optimizers: list[torch.optim.Optimizer], device: torch.device, precision: str, steps: int
    ) -> None:
        super().__init__(optimizers, World(device=device), precision, None)
        self.steps_per_epoch, self.total_steps = steps, sys.maxsize

    def note(self, kind: str, values: dict[str, float]) -> None:
        """Keeps no record."""


@dataclass
class Steps:
    """Some steps of one mode, to be done again and again.

    Attributes:
        mode: which does them.
        engine: for the mode.
        steps: the micro-batches of each step, on the device.
        encoded: items that went through the encoder in the last `run`.
    """

    mode: Mode
    engine: Any
    steps: list[list[Batch]]
    encoded: float = field(default=0.0, init=False)

    def run(self, count: int | None = None) -> None:
        """Does the first `count` of the steps, or all."""
        self.encoded = 0.0
        for micros in self.steps[:count]:
            for batch in micros:
                self.engine.last_micro_batch = batch is micros[-1]
                found = self.mode.step(batch, self.engine)
                self.encoded += sum(float(found[f"encoded_{name}"]) for name in ("forward", "again"))
            self.engine.steps += 1


def begun(
    method: ContentMethod, data: RecData, steps: int, device: torch.device, micros: int = 1
) -> tuple[Mode, BareEngine, list[list[Batch]]]:
    """Returns what `Steps` are made of: a method's mode, an engine, and the first steps of an epoch.

    Args:
        method: of which nothing was built yet.
        data: what it trains on.
        steps: how many; after an epoch the next one follows.
        device: where.
        micros: micro-batches of each step.
    """
    data = method.prepare(data)
    model = method.build(data).to(device).train()
    source = method.batches(data)
    engine = BareEngine(method.optimizers(model), device, method.config.run.precision, steps)
    mode = method.mode
    mode.begin(engine)  # type: ignore[arg-type]
    return mode, engine, [_micros(source, step, micros, device) for step in range(steps)]


def fitting(make: Callable[[int], Made]) -> Made:
    """Returns what `make` makes for the fewest micro-batches with which it fits into memory.

    Args:
        make: called with a number of micro-batches, more and more; nothing of what fails may stay behind.

    Raises:
        torch.cuda.OutOfMemoryError: not even a small part of a step fits.
    """
    micros = 1
    while micros < MOST_MICROS:
        made = _made(make, micros)
        if made is not None:
            return made
        gc.collect()
        torch.cuda.empty_cache()
        micros *= 2
    raise torch.cuda.OutOfMemoryError


def _made(make: Callable[[int], Made], micros: int) -> Made | None:
    """Returns what is made for so many micro-batches; None, and nothing left of it, where it does not fit."""
    with suppress(torch.cuda.OutOfMemoryError):
        return make(micros)
    return None


def _micros(source: Batches, step: int, micros: int, device: torch.device) -> list[Batch]:
    """Returns the micro-batches of a step; after an epoch the next one follows."""
    epoch, position = divmod(step, source.steps_per_epoch)
    shares = [Share(micro=micro, micros=micros) for micro in range(micros)]
    return [source.batch(epoch, position, share, step).to(device) for share in shares]
