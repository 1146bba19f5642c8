"""Makes batches ahead of time on a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace

import torch

from effrec_cli.data.batches import Batch, Batches, Share

AHEAD = 4
"""Micro-batches kept ready."""


class Feeder:
    """Yields this rank's micro-batches, in the order that is a pure function of the step.

    A thread makes the next few while the device computes. The order does not depend on its timing.

    Args:
        batches: the pure function.
        device: where batches are put; for a GPU through page-locked memory, without waiting.
        rank: this process.
        ranks: processes in all.
        micros: micro-batches in a step.
        start: first step.
        end: step after the last.
    """

    def __init__(
        self,
        batches: Batches,
        device: torch.device,
        *,
        rank: int,
        ranks: int,
        micros: int,
        start: int,
        end: int,
    ) -> None:
        self._batches, self._device = batches, device
        self._rank, self._ranks, self._micros = rank, ranks, micros
        self._steps = range(start, end)
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="effrec-feeder", daemon=True)

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # a full queue would keep the thread waiting
                self._ready.get_nowait()
            self._thread.join(timeout=0.01)

    def next(self) -> Batch:
        """Returns the next micro-batch on the device; an error met while making it is raised here."""
        got = self._ready.get()
        if isinstance(got, BaseException):
            raise got
        return got.to(self._device)

    def _work(self) -> None:
        try:
            if self._device.index is not None:  # else each rank would open a context on the first GPU
                torch.cuda.set_device(self._device)
            for batch in self._made():
                if not self._put(batch):
                    return
        except BaseException as error:
            self._put(error)

    def _made(self) -> Iterator[Batch]:
        for step in self._steps:
            epoch, position = divmod(step, self._batches.steps_per_epoch)
            for micro in range(self._micros):
                share = Share(self._rank, self._ranks, micro, self._micros)
                yield self._pinned(self._batches.batch(epoch, position, share, step))

    def _pinned(self, batch: Batch) -> Batch:
        if self._device.type != "cuda":
            return batch
        return replace(batch, tensors={name: tensor.pin_memory() for name, tensor in batch.tensors.items()})

    def _put(self, item: Batch | BaseException) -> bool:
        """Queues an item; returns False when nobody wants more."""
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=0.1)
                return True
        return False
