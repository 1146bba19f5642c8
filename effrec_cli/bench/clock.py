"""Times and peak memory of a piece of work, on a GPU by its own events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from effrec_cli.evaluation.memory import peak_memory

Work = Callable[[], object]


def median_seconds(work: Work, device: torch.device, times: int = 5, warm_ups: int = 1) -> float:
    """Returns the median time of `work` after some runs that do not count."""
    for _ in range(warm_ups):
        work()
    return statistics.median(_seconds(work, device) for _ in range(times))


def extra_bytes(work: Work, device: torch.device) -> float:
    """Returns how far memory rises above its level before, while `work` runs.

    On a GPU what tensors hold at the peak, on a CPU the process's resident memory.
    """
    watch = peak_memory(device)
    watch.reset()
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return float((watch.peak_bytes() or 0) - before)


def _seconds(work: Work, device: torch.device) -> float:
    if device.type != "cuda":
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
