"""How large a model is and how much it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from effrec_cli.evaluation.cost_record import Parameters


def count_parameters(model: nn.Module) -> Parameters:
    """Returns the numbers of a model's parameters; one shared by two layers counts once."""
    parameters = list(model.parameters())
    return Parameters(
        all=sum(tensor.numel() for tensor in parameters),
        trainable=sum(tensor.numel() for tensor in parameters if tensor.requires_grad),
        nonzero=sum(int(torch.count_nonzero(tensor.detach())) for tensor in parameters),
    )


def flops_per_sample(forward: Callable[[], Any], samples: int = 1) -> float:
    """Returns the floating-point operations of `forward()` divided by its number of samples.

    Counted by torch's FlopCounterMode: matrix products, convolutions and attention, a multiply-add as two.
    Attention runs in its plain form meanwhile, since the fused one of a CPU is not counted. Look-ups,
    elementwise operations and kernels outside torch count nothing.

    Args:
        forward: runs one forward pass, without gradients.
        samples: how many samples it computes.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        forward()
    return counter.get_total_flops() / samples
