"""Which weights of an encoder's network train: all, the top layers, or low-rank adapters."""

from __future__ import annotations

from typing import Any

from torch import nn

from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.models.encoders.network import Network

WHERE = "method.encoder"


def train_top(network: Network, count: int) -> None:
    """Freezes all but the last `count` layers and what runs after them.

    Raises:
        ConfigError: the network has no more layers than that, or they cannot be told.
    """
    first = _first(network, count)
    network.requires_grad_(False)
    layers = network.layers()
    assert layers is not None
    for part in (*layers[first:], *network.tail()):
        part.requires_grad_(True)
    network.freeze(first)


def train_adapters(network: Network, model: nn.Module, rank: int, count: int | None) -> None:
    """Freezes the network and puts adapters of some rank beside the linear maps of its layers.

    An adapter adds `2 B A x` to `W x`; B starts at 0, so that nothing changes before training.

    Args:
        network: what is adapted.
        model: the module of transformers inside it.
        rank: rows of A and columns of B.
        count: how many of the last layers are adapted; None for all.

    Raises:
        ConfigError: there are not so many layers, or no linear map in them.
        EnvironmentFault: peft cannot be imported.
    """
    first = 0 if count is None else _first(network, count)
    names = _linear_names(network, model, first)
    if not names:
        raise ConfigError(
            "This encoder has no linear maps that adapters could stand beside.",
            where=f"{WHERE}.train",
            fix=f"{WHERE}.train=all",
        )
    network.requires_grad_(False)
    _inject(model, names, rank)
    network.freeze(first)


def _first(network: Network, count: int) -> int:
    """Returns the number of the lowest of the last `count` layers."""
    layers = network.layers()
    if layers is None:
        raise ConfigError(
            "The layers of this encoder cannot be told apart.",
            where=f"{WHERE}.top_layers",
            fix=f"{WHERE}.train=all, or {WHERE}.train=lora without top_layers",
        )
    if count >= len(layers):
        raise ConfigError(
            f"This encoder has {len(layers)} layers: top_layers={count} leaves none to freeze.",
            where=f"{WHERE}.top_layers",
            fix=f"{WHERE}.train=all, or {WHERE}.top_layers={max(1, len(layers) - 1)}",
        )
    return len(layers) - count


def _linear_names(network: Network, model: nn.Module, first: int) -> list[str]:
    """Returns the full names of the linear maps in layers `first` and above; of all, without layers."""
    from transformers.pytorch_utils import Conv1D

    layers = network.layers()
    holders = [model] if layers is None else list(layers[first:])
    chosen = {part for holder in holders for part in holder.modules()}
    kinds = (nn.Linear, Conv1D)
    return [name for name, part in model.named_modules() if part in chosen and isinstance(part, kinds)]


def _inject(model: Any, names: list[str], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise EnvironmentFault(
            f"Training adapters needs peft, which cannot be imported: {error}.",
            where=f"{WHERE}.train=lora",
            fix="pip install --upgrade 'effrec[encoders]'",
        ) from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model)
