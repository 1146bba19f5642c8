"""A few samples' worth of a run, tried to see what memory the whole will take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from effrec_cli.data.batches import Batches, Share
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.blocks import BYTES_PER_SCORE, block_rows
from effrec_cli.evaluation.memory import peak_memory
from effrec_cli.methods.base import Method
from effrec_cli.precision import autocast, resolve_precision
from effrec_cli.schema.protocols import is_own

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

BUDGET_BYTES = 512 << 20
"""What may be taken just to look; what is larger is judged by smaller ones."""
_RISE = 4
"""How many times as many samples each try takes as the one before."""
_OTHERS = 4
"""Micro-batches that are tried where a whole one can be."""


@dataclass(frozen=True)
class Trial:
    """Bytes on top of the weights, all for one micro-batch.

    Attributes:
        activations: kept from forward to backward.
        step: at the peak of forward and backward, gradients among them.
        validation: at the peak of ranking a block of users, or what its scores take where that rises no
            higher than the steps that were tried.
    """

    activations: int
    step: int
    validation: int


@dataclass(frozen=True)
class _Try:
    """What one micro-batch of `samples` kept for its backward pass, and its peak."""

    samples: int
    kept: int
    peak: int


def try_run(method: Method, batches: Batches, data: RecData, device: torch.device) -> Trial:
    """Returns what memory a run takes, measured here on ever larger batches and on a block of users.

    In the order of a run, since memory that a step gives back stays with the process; no weight moves. What
    a whole micro-batch takes is known where it stays below `BUDGET_BYTES`, and judged by the two largest
    batches below that otherwise.

    Raises:
        EffrecError: the model, the method and the data do not fit each other.
    """
    method.settle_memory(batches)
    growth, run = _Growth(device), method.config.run
    step = batches.batch(0, 0, Share(), 0).size
    micro_batch = -(-step // (run.accumulate * run.devices))
    tries = _steps(method, batches, device, growth, step, micro_batch)
    validation = _validation(method, data, device, growth)
    activations, peak = (
        _judged([(each.samples, getattr(each, name)) for each in tries], micro_batch)
        for name in ("kept", "peak")
    )
    return Trial(activations, peak, validation)


def try_step(
    method: Method, batches: Batches, share: Share, engine: DryEngine, position: int = 0
) -> tuple[int, int]:
    """Runs one share forward and back; returns its samples and the bytes kept in between.

    Parameters are left out.

    Raises:
        ConfigError: the method's loss is not one number.
    """
    batch = batches.batch(0, position, share, 0).to(engine.device)
    own = {each.untyped_storage().data_ptr() for each in method.model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not engine.went_back and storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    engine.went_back = False
    method.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = method.training_step(batch, cast("Engine", engine))
        method.settle(cast("Engine", engine))  # what would wait for the last micro-batch
    loss = losses.get("loss")
    if loss is None or loss.ndim:
        raise ConfigError("The method's loss is not one number.", where=f"method={method.config.method.name}")
    for parameter in method.model.parameters():
        parameter.grad = None
    return batch.size, sum(storages.values())


class DryEngine:
    """Stands in for the engine in a `training_step` that is to move nothing.

    Attributes:
        went_back: whether the backward pass has begun, which may keep tensors of its own.
    """

    last_micro_batch = False
    went_back = False

    def __init__(self, precision: str, device: torch.device) -> None:
        self.precision, self.device = resolve_precision(precision, device), device

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of the run's precision."""
        return autocast(self.precision, self.device)

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients."""
        self.went_back = True
        loss.backward()

    def update(self) -> None:
        """Moves no weight."""


class _Growth:
    """How far memory has risen above where it was at first."""

    def __init__(self, device: torch.device) -> None:
        self._peak = peak_memory(device)
        self._peak.reset()
        self._start = self._peak.peak_bytes() or 0

    def so_far(self) -> int:
        """Returns the highest rise, in bytes."""
        return (self._peak.peak_bytes() or 0) - self._start


def _steps(
    method: Method, batches: Batches, device: torch.device, growth: _Growth, step: int, largest: int
) -> list[_Try]:
    """Returns tries of rising size, up to a micro-batch or as large as may be just to look.

    Args:
        method: of the run.
        batches: its training batches.
        device: where it runs.
        growth: of memory.
        step: samples of a step.
        largest: samples of one micro-batch of one rank.
    """
    engine = DryEngine(method.config.run.precision, device)
    tries: list[_Try] = []
    samples = 1
    while True:
        size, kept = try_step(method, batches, Share(micros=-(-step // samples)), engine)
        tries.append(_Try(size, kept, growth.so_far()))
        if samples == largest:
            whole = Share(micros=-(-step // size))
            return [*tries[:-1], _again(tries[-1], method, batches, engine, growth, whole)]
        samples = min(largest, _RISE * samples)
        if len(tries) > 1 and _judged([(each.samples, each.peak) for each in tries], samples) > BUDGET_BYTES:
            return tries


def _again(
    whole: _Try, method: Method, batches: Batches, engine: DryEngine, growth: _Growth, share: Share
) -> _Try:
    """Returns the try of a micro-batch, a step's `share`, with what others make the process hold on to."""
    for position in range(1, min(_OTHERS, batches.steps_per_epoch)):
        try_step(method, batches, share, engine, position)
    return replace(whole, peak=growth.so_far())


def _judged(seen: list[tuple[int, int]], samples: int) -> int:
    """Returns the bytes of `samples`: those seen last, where these are as many, else along their line."""
    last_size, last = seen[-1]
    if last_size >= samples or len(seen) < 2:
        return last * samples // last_size if last_size < samples else last
    size, before = seen[-2]
    slope = (last - before) / (last_size - size) if last_size > size else last / last_size
    return int(last + max(0.0, slope) * (samples - last_size))


def _validation(method: Method, data: RecData, device: torch.device, growth: _Growth) -> int:
    rows = method.config.evaluation.block_rows or block_rows(data.num_items, device)
    scores = 0
    if not is_own(method.config):
        rows = min(rows, len(data.valid))
        scores = rows * data.num_items * BYTES_PER_SCORE
        if scores > BUDGET_BYTES or not rows:
            return scores
    before = growth.so_far()
    method.judge("valid", rows)
    return growth.so_far() if growth.so_far() > before else scores
