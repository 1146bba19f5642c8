"""Linear layers of which two of each four consecutive inputs count: the pattern 2:4 of NVIDIA's GPUs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.sparse.choose import largest_of_rows
from effrec_cli.models.sparse.semi_structured import product, sparse_matrix

GROUP, LIVE = 4, 2


class HalfLinear(nn.Module):
    """A linear layer that trains all of its numbers, and reads the two largest of each four.

    The gradient of what is read goes to all of them, straight through the choice (Zhou et al. 2021, arXiv
    2102.04010).

    Args:
        linear: gives its parameters; its inputs come in fours.

    Attributes:
        weight: [M, N], as of `nn.Linear`.
        bias: [M]; None without one.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns [..., M] of inputs [..., N]."""
        return F.linear(inputs, _Through.apply(self.weight, self.live()), self.bias)

    @torch.no_grad()
    def live(self) -> Tensor:
        """Returns which numbers count, bool [M, N]: exactly two of each four, of equals the first."""
        return largest_of_rows(self.weight.view(-1, GROUP), LIVE).view_as(self.weight)

    def silent(self) -> Tensor:
        """Returns the numbers that do not count, [M, N], with 0 in the place of those that do."""
        return self.weight * ~self.live()

    @torch.no_grad()
    def served(self) -> ServedLinear:
        """Returns the layer with what counts alone; it shares the bias."""
        live = self.live()
        codes = _codes(live.view(-1, GROUP).nonzero()[:, 1].view(-1, LIVE))
        bias = None if self.bias is None else self.bias.detach()
        return ServedLinear(self.weight[live].view(len(live), -1), codes, bias)


class ServedLinear(nn.Module):
    """A linear layer of which two numbers of each four are stored, with their places; it does not train.

    Attributes:
        values: float32 [M, N / 2].
        places: uint8 [ceil(M N / 8)]: two bits for each of the values, four of them in a byte.
        bias: [M]; None without one.
    """

    values: Tensor
    places: Tensor
    bias: Tensor | None

    def __init__(self, values: Tensor, places: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        for name, tensor in (("values", values), ("places", places), ("bias", bias)):
            self.register_buffer(name, tensor)
        self._sparse: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns [..., M] of inputs [..., N]."""
        if self._sparse is None or torch.is_grad_enabled():
            return F.linear(inputs, self.unpacked(), self.bias)
        found = product(inputs, self._sparse)
        return found if self.bias is None else found + self.bias

    def multiply_in(self, dtype: torch.dtype | None) -> bool:
        """Lets the GPU multiply sparsely from now on, where it can; returns whether it does.

        Args:
            dtype: bfloat16 or float16, what values and inputs are rounded to; None multiplies in 32 bits.
        """
        self._sparse = None if dtype is None else sparse_matrix(self.unpacked().to(dtype))
        return self._sparse is not None

    def unpacked(self) -> Tensor:
        """Returns the matrix float32 [M, N]."""
        pairs = self.values.view(-1, LIVE)
        whole = pairs.new_zeros(len(pairs), GROUP).scatter_(1, _decoded(self.places, len(pairs)), pairs)
        return whole.view(len(self.values), -1)


def halve(model: nn.Module) -> None:
    """Lets two of each four inputs count in the linear layers of a model whose inputs come in fours."""
    for name, layer in _linear(model):
        if layer.in_features % GROUP == 0:
            model.set_submodule(name, HalfLinear(layer))


def left_whole(model: nn.Module) -> dict[str, int]:
    """Returns the linear layers that all inputs count in, by name, and how many inputs they have."""
    return {name: layer.in_features for name, layer in _linear(model)}


def _linear(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear)]


def half_layers(model: nn.Module) -> list[HalfLinear]:
    """Returns the layers of a model that are so while they train."""
    return [each for each in model.modules() if isinstance(each, HalfLinear)]


def served_layers(model: nn.Module) -> list[ServedLinear]:
    """Returns the layers of a model that are so as it is served."""
    return [each for each in model.modules() if isinstance(each, ServedLinear)]


def with_served_layers(module: nn.Module) -> nn.Module:
    """Returns a module with its layers as they are served; it shares the rest, or is itself without any."""
    if isinstance(module, HalfLinear):
        return module.served()
    if not half_layers(module):
        return module
    made = copy.copy(module)
    made._modules = dict(module._modules)
    for name, child in module.named_children():
        made._modules[name] = with_served_layers(child)
    return made


def restore_layers(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts the layers of a kept network, as they were served, in the place of those that train."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, HalfLinear):
            parts = (state.get(f"{name}.bias"), state[f"{name}.values"], state[f"{name}.places"])
            model.set_submodule(name, ServedLinear(parts[1], parts[2], parts[0]))


def _codes(places: Tensor) -> Tensor:
    """Returns places int64 [G, 2], 0 to 3 each, two bits each: uint8 [ceil(G / 2)]."""
    nibbles = (places[:, 0] | places[:, 1] << 2).to(torch.uint8)
    even = F.pad(nibbles, (0, len(nibbles) % 2))
    return even[0::2] | even[1::2] << 4


def _decoded(codes: Tensor, groups: int) -> Tensor:
    """Returns `_codes` back, int64 [G, 2]."""
    nibbles = torch.stack([codes & 15, codes >> 4], 1).flatten()[:groups]
    return torch.stack([nibbles & 3, nibbles >> 2], 1).long()


class _Through(torch.autograd.Function):
    """What a mask leaves of a matrix; backward gives the gradient to all of it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, live: Tensor) -> Tensor:
        return weight.where(live, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
