"""Whether what callers pass are tensors, and of which dtypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)


def check_tensor(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        hint = "; give its weight" if isinstance(value, torch.nn.Module) else ""
        raise TypeError(f"{name} must be a tensor, not {type(value).__name__}{hint}")


def shape(tensor: Tensor) -> list[int]:
    """Returns a tensor's shape as errors show it."""
    return list(tensor.shape)
