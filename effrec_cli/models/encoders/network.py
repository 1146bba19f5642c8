"""What every network of an encoder can do: run whole, or only what lies below or above its frozen layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """Tokens or pixels to states; inputs are int64 [n, w] or uint8 [n, height, width, 3].

    What `real`, bool [n, w], says to be padding is never read; None where nothing is.

    Args:
        dim: width D of the states.

    Attributes:
        dim: as above.
        frozen: layers, from the lowest on, that never train and run without dropout.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.frozen = dim, 0

    @abstractmethod
    def forward(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns states [n, w, D]."""

    @abstractmethod
    def layers(self) -> nn.ModuleList | None:
        """Returns its layers in order, or None where they cannot be told."""

    @abstractmethod
    def tail(self) -> list[nn.Module]:
        """Returns what runs after the last layer and has weights."""

    def freeze(self, layers: int) -> None:
        """Parts the network there: what lies below runs without dropout from now on."""
        self.frozen = layers
        self.train(self.training)

    def train(self, mode: bool = True) -> Any:
        """Sets training or evaluation; what is frozen stays in evaluation."""
        super().train(mode and not self.frozen)
        self.training = mode
        layers = self.layers()
        if self.frozen and layers is not None:
            for layer in layers[self.frozen :]:
                layer.train(mode)
        return self


class PartedNetwork(Network):
    """A network that can run only what lies below, or above, its frozen layers.

    Attributes:
        parted: whether it really can.
    """

    parted = True

    @abstractmethod
    def lower(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns the states [n, w, D] that layer `frozen` reads."""

    @abstractmethod
    def upper(self, states: Tensor, real: Tensor | None) -> Tensor:
        """Returns the states [n, w, D] of the whole network from those that layer `frozen` reads."""
