"""Who computes a loss: the choice of a kernel by name and device."""

from __future__ import annotations

import torch
from torch import Tensor

KERNELS = ("auto", "triton", "torch", "reference")


class KernelUnavailable(RuntimeError):
    """The kernel asked for cannot run here; the message says what is missing."""


def which_kernel(kernel: str, where: Tensor | torch.device | str) -> str:
    """Returns who computes: `torch` or `reference`. The choice never changes what is computed.

    Args:
        kernel: `auto` the fastest that runs here, `torch`, `reference` (the float64 oracle: slow) or
            `triton`.
        where: the device, or a tensor on it.

    Raises:
        ValueError: there is no kernel of that name.
        KernelUnavailable: `triton` is asked for.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, not '{kernel}'")
    if kernel == "triton":
        device = where.device if isinstance(where, Tensor) else torch.device(where)
        raise KernelUnavailable(
            f"kernel=triton cannot run on {device}: this version of effrec_kernels holds no Triton kernels; "
            "kernel=auto or kernel=torch computes the same values"
        )
    return "torch" if kernel == "auto" else kernel
