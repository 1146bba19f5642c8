"""Peak memory of a stretch of a process: the CUDA allocator's, or resident memory's growth on a CPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Protocol

import torch

CUDA_ALLOCATED, RSS_GROWTH, RSS_GROWTH_EVER = "cuda_allocated", "rss_growth", "rss_growth_ever"

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory(Protocol):
    """Watches the peak from `reset` on.

    Attributes:
        kind: what is measured; see `Cost.memory_kind`.
    """

    kind: str

    def reset(self) -> None:
        """Starts a stretch: what was reached before does not count."""
        ...

    def peak_bytes(self) -> int | None:
        """Returns the peak of the stretch so far, or None where it cannot be known."""
        ...


def peak_memory(device: torch.device) -> PeakMemory:
    """Returns what watches the memory of `device`, not yet reset."""
    if device.type == "cuda":
        return CudaPeak(device)
    return ResidentPeak() if _high_water_resets() else EverPeak()


class CudaPeak:
    """The most bytes that torch's allocator held for tensors, the model's among them."""

    kind = CUDA_ALLOCATED

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Starts a stretch."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        """Returns the allocator's peak in bytes."""
        return torch.cuda.max_memory_allocated(self.device)


class ResidentPeak:
    """The growth of resident memory, from Linux's own high-water mark; no sampling, so no peak is missed."""

    kind = RSS_GROWTH

    def __init__(self) -> None:
        self._start = 0

    def reset(self) -> None:
        """Starts a stretch."""
        _CLEAR.write_text("5")
        self._start = _status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        """Returns how far resident memory rose above its value at the reset."""
        return max(0, _status_bytes("VmHWM") - self._start)


class EverPeak:
    """The growth of the process's peak since its start: too low where an earlier peak was higher."""

    kind = RSS_GROWTH_EVER

    def __init__(self) -> None:
        self._start: int | None = None

    def reset(self) -> None:
        """Starts a stretch."""
        self._start = _peak_ever_bytes()

    def peak_bytes(self) -> int | None:
        """Returns how far the peak rose above its value at the reset; None on Windows."""
        now = _peak_ever_bytes()
        return None if now is None or self._start is None else now - self._start


def _status_bytes(key: str) -> int:
    """Returns one figure of /proc/self/status in bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    if found is None:
        raise OSError(f"{_STATUS} has no {key}")
    return int(found[1]) * 1024


def _high_water_resets() -> bool:
    """Returns whether the kernel resets a process's high-water mark on request; sandboxes may not."""
    try:
        _CLEAR.write_text("5")
        return _status_bytes("VmHWM") <= _status_bytes("VmRSS") + (1 << 20)
    except OSError:
        return False


def _peak_ever_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
