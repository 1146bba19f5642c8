"""Matrix products that sum in float32 and segment sums by item: the arithmetic that all routes share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_HALF = (torch.float16, torch.bfloat16)
# Below this many multiplications a matrix, PyTorch's batched product on a CPU is a plain loop.
_NAIVE_BMM = 400


def mm(left: Tensor, right: Tensor) -> Tensor:
    """Returns the product of [a, b] and [b, c]; 16-bit operands (CUDA) give float32."""
    if left.dtype in _HALF:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right)


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds the product of [a, b] and [b, c] to `total` [a, c] (float32 where the operands are 16-bit)."""
    if left.dtype in _HALF:
        total.add_(mm(left, right))
    else:
        total.addmm_(left, right)


def divide_(tensor: Tensor, by: float) -> Tensor:
    """Returns `tensor` divided in place, untouched by 1."""
    return tensor if by == 1 else tensor.div_(by)


def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """Returns [m]: the product of each row of `left` [m, D] with that of `right`, in float32 or more."""
    if left.dtype in _HALF:
        left, right = left.float(), right.float()
    return (left * right).sum(dim=1)


def add_row_products_(total: Tensor, matrices: Tensor, vectors: Tensor, scale: float = 1.0) -> None:
    """Adds to `total` [m, S] `scale` times the product of each row's [S, D] matrix with its [D] vector."""
    # As a row times the transposed matrix: several times faster on a CPU than the matrix times a column.
    left, right, into = vectors.unsqueeze(1), matrices.transpose(1, 2), total.unsqueeze(1)
    if left.dtype in _HALF:
        into.add_(torch.bmm(left, right, out_dtype=torch.float32), alpha=scale)
    else:
        into.baddbmm_(left, right, alpha=scale)


def bmm(left: Tensor, right: Tensor) -> Tensor:
    """Returns the products of matrices [g, a, b] and [g, b, c]; 16-bit operands (CUDA) give float32."""
    if left.dtype in _HALF:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left, right)


def row_mixtures(weights: Tensor, matrices: Tensor) -> Tensor:
    """Returns [m, D]: each row's [S, D] matrix summed with its [S] weights."""
    if weights.is_cpu and matrices[0].numel() < _NAIVE_BMM:
        return (weights.unsqueeze(2) * matrices).sum(dim=1)
    return bmm(weights.to(matrices.dtype).unsqueeze(1), matrices).squeeze(1)


def add_by_item(total: Tensor, ids: Tensor, weights: Tensor, hidden: Tensor, room_bytes: int) -> None:
    """Adds weights[i, j] * hidden[i] to row ids[i, j] of `total`, for all i and j.

    The pairs are sorted by item and each item's run is summed before it meets `total`: no [m, S, D] tensor,
    no atomics, the same bits each time, and one row of `total` touched per distinct item. Workspace: about 40
    bytes a pair, and sums of `room_bytes` at a time.

    Args:
        total: float32 or float64 [V, D].
        ids: int32 [m, S].
        weights: [m, S] in the dtype of `total`.
        hidden: [m, D] in the dtype of `total`.
        room_bytes: bound on the sums alive at a time.
    """
    items, order = ids.flatten().sort(stable=True)
    distinct, counts = items.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0).sub_(counts)
    rows = order.div(ids.shape[1], rounding_mode="floor")
    pair_weights = weights.flatten().index_select(0, order)
    at_once = max(1, room_bytes // (hidden.shape[1] * hidden.itemsize))
    ends = [*starts[::at_once].tolist(), len(order)]
    for piece, (start, end) in enumerate(pairwise(ends)):
        some = slice(piece * at_once, (piece + 1) * at_once)
        sums = embedding_bag(
            rows[start:end],
            hidden,
            starts[some] - start,
            per_sample_weights=pair_weights[start:end],
            mode="sum",
        )
        total.index_add_(0, distinct[some], sums)
