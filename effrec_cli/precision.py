"""In which number format a run computes, and how exactly it repeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from effrec_cli.errors import ConfigError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def refuse_precision(name: str, device: torch.device) -> None:
    """Raises ConfigError where a run cannot train in the precision `name` on `device`."""
    if name == "fp16" and device.type == "cpu":
        raise ConfigError(
            "fp16 needs a GPU: a CPU has no gradient scaling for it.",
            where="run.precision=fp16",
            fix="run.precision=bf16, or a machine with a GPU",
        )


def resolve_precision(name: str, device: torch.device) -> str:
    """Returns `fp32`, `bf16` or `fp16`; `auto` is bf16 where the GPU computes in it, else fp32."""
    if name != "auto":
        return name
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context a forward pass runs in; weights and gradients stay fp32 in each."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


class LossScaler:
    """Keeps fp16 gradients above underflow, with the rules of `torch.amp.GradScaler`, all on the device.

    The scale starts at 2**16, halves after a step with a non-finite gradient (which is skipped) and doubles
    after 2000 good ones. Unlike GradScaler it looks at all optimizers together and never waits for the
    device.

    Args:
        device: where the scale lives.

    Attributes:
        scale: float32 scalar.
        good_steps: int32 scalar, steps since the scale last changed.
    """

    START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000
    MINIMUM = 2.0**-13
    """A scale below this means that gradients are non-finite at any scale."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), self.START, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divides gradients by the scale, in place; the scale is a power of two, so exactly."""
        torch._foreach_mul_(gradients, self.scale.reciprocal())

    def update(self, bad: Tensor) -> Tensor:
        """Moves the scale after a step; returns bool, whether it has run out.

        Args:
            bad: bool scalar, whether the step had a non-finite loss or gradient.
        """
        self.good_steps.add_(1).masked_fill_(bad, 0)
        grown = self.good_steps >= self.INTERVAL
        self.good_steps.masked_fill_(grown, 0)
        kept_or_grown = torch.where(grown, self.scale * self.GROWTH, self.scale)
        self.scale.copy_(torch.where(bad, self.scale * self.BACKOFF, kept_or_grown))
        return self.scale < self.MINIMUM

    def state(self) -> dict[str, float]:
        """Returns JSON-able state."""
        return {"scale": self.scale.item(), "good_steps": self.good_steps.item()}

    def load(self, state: dict[str, float]) -> None:
        """Takes the `state` back."""
        self.scale.fill_(state["scale"])
        self.good_steps.fill_(int(state["good_steps"]))


def make_deterministic() -> None:
    """Makes PyTorch refuse operations whose result may differ between two runs on one machine.

    cuBLAS reads its workspace setting when it starts: call this before the first computation on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def determinism_explained() -> Iterator[None]:
    """Turns PyTorch's refusal of an operation under `run.deterministic` into ConfigError, which names it."""
    try:
        yield
    except RuntimeError as fault:
        if "does not have a deterministic implementation" not in str(fault):
            raise
        operation = str(fault).split(" ", 1)[0]
        raise ConfigError(
            f"{operation} has no deterministic implementation on this device.",
            where="run.deterministic=true",
            fix="run.deterministic=false, or run.device=cpu",
        ) from fault
