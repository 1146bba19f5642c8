"""How many pieces of work a device is given, which is what small steps cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]


class _Counted(TorchDispatchMode):
    """Counts the operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(work: Work) -> int:
    """Returns how many of torch's operators `work` calls, those that only look at a tensor anew among them.

    What a compiled graph does is not seen.
    """
    with _Counted() as counted:
        work()
    return counted.count


def launches(work: Work, device: torch.device) -> int:
    """Returns how many kernels, copies and fillings a GPU is given by `work`; 0 where it cannot tell."""
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as watched:
        work()
        torch.cuda.synchronize(device)
    on_device = torch.autograd.DeviceType.CUDA
    events = watched.events() or []
    return sum(each.device_type == on_device and not each.is_user_annotation for each in events)
