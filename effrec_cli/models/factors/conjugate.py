"""Conjugate gradients for many rows at once, from where they stand, without forming a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from effrec_cli.models.factors.spans import Span


def conjugate(
    span: Span, table: Tensor, squares: Tensor, diagonal: Tensor, start: Tensor, steps: int, chunk_bytes: int
) -> Tensor:
    """Returns vectors [B, d] that lower each row's |X p - t|^2 + p' D p, X being its cells' rows of `table`.

    Preconditioned by the diagonal of X'X + D. A step costs 2 n d multiply-adds a product, two products.

    Args:
        span: the rows; their values are the targets t, 1 where there are none.
        table: [V, d].
        squares: the table's squares, [V, d].
        diagonal: D [B, d], above 0.
        start: [B, d], where the rows stand.
        steps: at most.
        chunk_bytes: what a product may gather.
    """
    scale = span.combine(None, squares).add_(diagonal).reciprocal_()
    error = span.predict(start, table, chunk_bytes).neg_()
    error += 1 if span.values is None else span.values
    residual = span.combine(error, table).addcmul_(diagonal, start, value=-1)
    found, direction = start.clone(), scale * residual
    size = _inner(residual, direction)
    for step in range(steps):
        image = span.combine(span.predict(direction, table, chunk_bytes), table)
        image.addcmul_(diagonal, direction)
        length = _ratio(size, _inner(direction, image))
        found.addcmul_(direction, length)
        if step + 1 == steps:
            break
        residual.addcmul_(image, length, value=-1)
        ready = torch.mul(scale, residual, out=image)
        before, size = size, _inner(residual, ready)
        direction.mul_(_ratio(size, before)).add_(ready)
    return found


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Returns the products of rows, [B, 1]."""
    return torch.linalg.vecdot(left, right)[:, None]


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Returns above / below, 0 where a row is solved already."""
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
