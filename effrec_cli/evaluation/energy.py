"""Energy of one NVIDIA device, from its own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Joules = Callable[[], float]


def energy_counter(device: torch.device) -> Joules | None:
    """Returns a function giving the joules that `device` has used since its driver was loaded.

    The counter is the whole board's, whoever uses it. None on a CPU, where pynvml (extra `gpu`) is missing,
    and where the device has no counter (before Volta, MIG slices).
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = _handle(pynvml, device)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # any of NVML's errors, a missing library or an unreadable uuid: no figure, no harm
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000.0


def _handle(pynvml: Any, device: torch.device) -> Any:
    """Returns NVML's handle by uuid: its numbering ignores CUDA_VISIBLE_DEVICES."""
    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
