"""Products with matrices of pattern 2:4, as NVIDIA's GPUs have them from compute capability 8.0."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.sparse import to_sparse_semi_structured

CAPABILITY = (8, 0)
DTYPES = (torch.bfloat16, torch.float16)
MULTIPLES = (32, 64)
"""Rows and columns come in so many: both of torch's ways, cuSPARSELt and CUTLASS, take these."""
_ROWS = 8


def is_taken(matrix: Tensor) -> bool:
    """Returns whether device, dtype and shape of a matrix are such as GPUs multiply sparsely."""
    fits = all(size % some == 0 for size, some in zip(matrix.shape, MULTIPLES, strict=True))
    if not fits or matrix.dtype not in DTYPES or matrix.device.type != "cuda":
        return False
    # ROCm's devices have numbers of their own.
    return torch.version.cuda is not None and torch.cuda.get_device_capability(matrix.device) >= CAPABILITY


def sparse_matrix(matrix: Tensor) -> Tensor | None:
    """Returns a matrix [M, N] of pattern 2:4 as the GPU multiplies it; None where it cannot.

    Args:
        matrix: of which two of each four consecutive numbers in a row are 0.
    """
    if not is_taken(matrix):
        return None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*prototype", category=UserWarning)
            made: Tensor = to_sparse_semi_structured(matrix.contiguous())
            product(matrix.new_zeros(_ROWS, matrix.shape[1]), made)
    except RuntimeError:  # such as torch built without cuSPARSELt
        return None
    return made


@torch.no_grad()
def product(inputs: Tensor, sparse: Tensor) -> Tensor:
    """Returns inputs [..., N] times `sparse_matrix` [M, N], [..., M] of the inputs' dtype."""
    rows = inputs.reshape(-1, inputs.shape[-1]).to(sparse.dtype)
    if not len(rows):
        return inputs.new_zeros(*inputs.shape[:-1], len(sparse))
    return F.linear(rows, sparse).to(inputs.dtype).view(*inputs.shape[:-1], len(sparse))
