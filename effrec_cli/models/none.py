"""What a method without a network has computed, as a module: counted, moved and saved like any other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class NoModel(nn.Module):
    """Holds named tensors; empty until `hold` is called.

    Floating-point tensors are frozen parameters, so that a table of fitted weights (EASE's V x V) counts as
    parameters, none of them trainable by gradients. Integer tensors (ids, offsets) are structure: buffers.

    Attributes:
        tasks: the training tasks that it goes with.
    """

    tasks: ClassVar[tuple[str, ...]] = ("none",)

    def hold(self, tensors: dict[str, Tensor]) -> None:
        """Takes these tensors in place of any it held."""
        self._parameters.clear()
        self._buffers.clear()
        for name, tensor in tensors.items():
            if torch.is_floating_point(tensor):
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(name, tensor)
