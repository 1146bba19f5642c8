"""Layers of method dsl's networks of which two of each four numbers count (`method.layers`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effrec_cli.data.batches import Batch
from effrec_cli.errors import ConfigError
from effrec_cli.models.sparse.half import half_layers, halve, left_whole, served_layers
from effrec_cli.schema.method_dsl import HALF, DSLConfig

DECAY = 2e-4
"""lambda_W of the sparse-refined straight-through estimator, SR-STE (Zhou et al. 2021, arXiv 2102.04010)."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def with_layers(model: nn.Module, own: DSLConfig) -> None:
    """Makes the layers of a model what `own.layers` says.

    Raises:
        ConfigError: no layer can be so.
    """
    if own.layers != HALF:
        return
    halve(model)
    if not half_layers(model):
        widths = ", ".join(f"{name} {inputs}" for name, inputs in left_whole(model).items())
        raise ConfigError(
            f"No layer has inputs in fours, of which two could count: {widths}.",
            where=f"method.layers={HALF}",
            fix="multiples of 4 for method.dim and the model's widths, or method.layers=dense",
        )


def with_decay(loss: Tensor, model: nn.Module, batch: Batch) -> Tensor:
    """Returns a micro-batch's loss and its share of the decay of numbers that do not count.

    The gradient of each of these has the term `DECAY` times the number then, once a step, as in SR-STE: they
    fade, and places settle.
    """
    layers = half_layers(model)
    if not layers:
        return loss
    squares = torch.stack([layer.silent().square().sum() for layer in layers]).sum()
    return loss + batch.size / batch.total_targets * 0.5 * DECAY * squares


def multiply_in(network: nn.Module, precision: str) -> None:
    """Lets a GPU multiply layers that are served sparsely, where 16 bits were asked for by name.

    Args:
        network: as it is served, on its device.
        precision: `run.precision`; `auto` and `fp32` leave scores in 32 bits.
    """
    for layer in served_layers(network):
        layer.multiply_in(_DTYPES.get(precision))


def layers_told(network: nn.Module) -> dict[str, Any]:
    """Returns how many numbers of the layers that are served so are live, and of how many; {} without any."""
    live = sum(layer.values.numel() for layer in served_layers(network))
    return {"layers": {"live": live, "of": 2 * live}} if live else {}


def layers_chosen(model: nn.Module | None) -> dict[str, str]:
    """Returns which layers stay whole where others do not; {} where that is none."""
    if model is None or not half_layers(model):
        return {}
    whole = ", ".join(f"{name} of {inputs}" for name, inputs in left_whole(model).items())
    return (
        {"method.layers": f"{HALF}, but for layers whose inputs do not come in fours: {whole}"}
        if whole
        else {}
    )
