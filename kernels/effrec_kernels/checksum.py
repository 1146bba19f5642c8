"""A number by which tensors are compared without being sent, computed where they are.

Words of 32 bits or fewer are multiplied by odd weights of 64 by place and summed, 1,024 at a time, modulo
2^64, and each sum is stirred; the same is done with the sums until one is left. One changed word is always
seen; other changes are missed with odds of 2^-64, or up to 2^-32 where the highest bits alone change. (Words
of 64 bits would not do: two changes of their highest bits cancel out under any odd weights.)

Source of the stirring: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

# How many words become one.
SPAN = 1 << 10
# Words whose products are held at a time, 8 bytes each.
_AT_A_TIME = 1 << 22
_WORDS = {1: torch.uint8, 2: torch.int16}
# 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB as signed numbers.
_FIRST, _SECOND = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def checksum(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Returns int64 [1] on `device`, a function of the bits of all tensors in order, read row by row.

    Shapes and dtypes are not in it: compare them too. The host waits for nothing.
    """
    weights = _stirred(torch.arange(1, SPAN + 1, device=device)) | 1
    numbers = [_folded(_words(tensor).to(device), weights) for tensor in tensors]
    return _folded(torch.cat(numbers), weights) if numbers else weights.new_zeros(1)


def _words(tensor: Tensor) -> Tensor:
    """Returns the bits of a tensor as integers [n]."""
    flat = tensor.detach().reshape(-1).contiguous()
    return flat.view(_WORDS.get(flat.element_size(), torch.int32))


def _folded(words: Tensor, weights: Tensor) -> Tensor:
    """Returns one number, int64 [1], of integers [n]."""
    while True:
        words = torch.cat([_sums(piece, weights) for piece in words.split(_AT_A_TIME)])
        if len(words) <= 1:
            return words if len(words) else weights.new_zeros(1)


def _sums(words: Tensor, weights: Tensor) -> Tensor:
    """Returns the stirred sums of every `SPAN` words, the last ones made up with zeros."""
    spans = pad(words, (0, -len(words) % SPAN)).view(-1, SPAN)
    return _stirred((spans * weights).sum(1))


def _stirred(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ (numbers >> 30)) * _FIRST
    numbers = (numbers ^ (numbers >> 27)) * _SECOND
    return numbers ^ (numbers >> 31)
