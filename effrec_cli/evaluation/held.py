"""Bytes of weights, gradients and optimizer state, as they are allocated and not as they are declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes of the memory that tensors lie in; what several share counts once, and whole."""
    found = {part.data_ptr(): part.nbytes() for tensor in tensors for part in _storages(tensor)}
    return sum(found.values())


def weights_bytes(model: nn.Module) -> int:
    """Returns the bytes of a model's parameters and buffers, such as the columns of sparse tables."""
    return held_bytes([*model.parameters(), *model.buffers()])


def optimizer_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Returns the bytes of the tensors that optimizers remember."""
    states = (state for one in optimizers for state in one.state.values())
    return held_bytes(each for state in states for each in state.values() if isinstance(each, Tensor))


def gradient_bytes(parameters: Iterable[Tensor]) -> int:
    """Returns the bytes of the gradients that there are at the moment."""
    return held_bytes(each.grad for each in parameters if each.grad is not None)


def _storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    parts = [tensor._indices(), tensor._values()] if tensor.is_sparse else [tensor]
    return (part.untyped_storage() for part in parts)
