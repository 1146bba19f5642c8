"""Who computes a loss: the choice of a kernel by name, device and what is asked for."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from .values import one_of

KERNELS = ("auto", "triton", "torch", "reference")
# Tensor cores with bfloat16, and atomics on it: from Ampere on.
OLDEST_CAPABILITY = (8, 0)


class KernelUnavailable(RuntimeError):
    """The kernel asked for cannot run here; the message says what is missing."""


def which_kernel(
    kernel: str, where: Tensor | torch.device | str, *, full: bool = False, limit: str | None = None
) -> str:
    """Returns who computes: `triton`, `torch` or `reference`. The choice never changes what is computed.

    Args:
        kernel: `auto` the fastest that runs here, `torch`, `reference` (the float64 oracle: slow) or
            `triton`.
        where: the device, or a tensor of the problem on it.
        full: whether every item is a candidate; `auto` then takes PyTorch's matrix products.
        limit: why Triton's kernels cannot compute the problem, if they cannot.

    Raises:
        ValueError: there is no kernel of that name.
        KernelUnavailable: `triton` is asked for and cannot.
    """
    one_of("kernel", kernel, KERNELS)
    if kernel not in ("auto", "triton"):
        return kernel
    device = where.device if isinstance(where, Tensor) else torch.device(where)
    if isinstance(where, Tensor) and where.dtype == torch.float64:
        limit = "its kernels compute in float32, not float64"
    # On a CPU kernels run in the interpreter alone, slowly.
    if kernel == "auto" and (full or limit or device.type == "cpu"):
        return "torch"
    limit = limit or _missing(device)
    if kernel == "auto":
        return "torch" if limit else "triton"
    if limit:
        raise KernelUnavailable(
            f"kernel=triton cannot run on {device}: {limit}; kernel=auto or kernel=torch computes the "
            "same values"
        )
    return "triton"


def _missing(device: torch.device) -> str | None:
    """Returns what Triton lacks to run on a device, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "there is no CUDA device here"
        capability = torch.cuda.get_device_capability(device)
        if capability >= OLDEST_CAPABILITY:
            return None
        return f"its compute capability is {capability[0]}.{capability[1]}, and 8.0 is needed"
    from .triton_kernels.launch import is_interpreted

    if device.type == "cpu" and is_interpreted():
        return None
    return "Triton needs a CUDA GPU (or TRITON_INTERPRET=1, to try it out on a CPU)"
