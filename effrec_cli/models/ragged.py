"""Attention over windows of all lengths behind each other, by the kernels that torch has for it on a GPU."""

from __future__ import annotations

import inspect
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # a torch built without it
    varlen_attn = None  # type: ignore[assignment]

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each [..., H, D / H]."""

HALF = (torch.float16, torch.bfloat16)
AMPERE = 8
"""Compute capability from which on flash attention runs."""
TAKES_IS_CAUSAL = varlen_attn is not None and "is_causal" in inspect.signature(varlen_attn).parameters
"""As of torch 2.10; later ones take a window to the left and right instead."""


def ragged_attention(heads: Heads, offsets: Tensor, longest: int, *, causal: bool, dropout: float) -> Tensor:
    """Returns what each item reads in its own window, [T, H, d].

    By `torch.nn.attention.varlen` where it can: 16 bits, no dropout. Otherwise by
    `scaled_dot_product_attention` over jagged tensors, which chooses a fused kernel.

    Args:
        heads: queries, keys and values, [T, H, d] each.
        offsets: int64 [B + 1], where windows start.
        longest: at least the longest window.
        causal: whether an item reads only itself and what came before it.
        dropout: share of weights dropped.
    """
    q = heads[0]
    if has_varlen(q.device, q.dtype, q.shape[-1], dropout):
        return _varlen(heads, offsets, longest, causal)
    return _jagged(heads, offsets, longest, causal, dropout)


def has_varlen(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float) -> bool:
    """Returns whether `torch.nn.attention.varlen` can compute this: 16 bits, no dropout, any recent GPU."""
    if varlen_attn is None or device.type != "cuda" or dtype not in HALF or dropout or head_dim % 8:
        return False
    return head_dim <= 256 and torch.cuda.get_device_properties(device).major >= AMPERE


def _varlen(heads: Heads, offsets: Tensor, longest: int, causal: bool) -> Tensor:
    starts = offsets.to(torch.int32)
    how = {"is_causal": causal} if TAKES_IS_CAUSAL else {"window_size": (-1, 0 if causal else -1)}
    return cast(Tensor, varlen_attn(*heads, starts, starts, longest, longest, **how))


def _jagged(heads: Heads, offsets: Tensor, longest: int, causal: bool, dropout: float) -> Tensor:
    # Their lengths' limits are given, or torch would ask the device for them.
    jagged = partial(torch.nested.nested_tensor_from_jagged, min_seqlen=1, max_seqlen=longest)
    q, k, v = (jagged(each.contiguous(), offsets).transpose(1, 2) for each in heads)
    mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    values: Tensor = mixed.transpose(1, 2).values()
    return values
