"""One random seed for each part of each step, so that no generator's state is ever kept."""

from __future__ import annotations

import torch

_MASK = 2**64 - 1


def mix(*keys: int) -> int:
    """Returns 63 well-mixed bits of some integers; neighbouring keys give unrelated seeds.

    Each key is folded in with the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    state = 0
    for key in keys:
        state = (state + (key & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def plant(seed: int, device: torch.device) -> None:
    """Seeds PyTorch's generators of the CPU and of `device`.

    `torch.manual_seed` would also call on every kind of device there is, at several times the cost of a small
    step where they are not in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
