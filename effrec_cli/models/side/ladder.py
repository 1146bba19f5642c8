"""A segment's blocks one after the other, with their derivative written out.

Autograd would run half as many operators again backward, and keep each state beside what a block reads.
Here a step backward is two batched products, the activation's derivative and a scaling; all else is done for
all blocks at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from effrec_cli.models.transformer import ACTIVATIONS


class Ladder(torch.autograd.Function):
    """Last states [T, n, D] of T towers over K taps, in the inputs' precision.

    With state 0 = `start`, block k reads x[k] = mix[k] taps[k] + shift[k] + carry[k] state[k] and gives
    state[k + 1] = x[k] + activation(x[k] down[k] + bias[k]) up[k].

    `apply` takes, all of one precision:
        taps: [K, F, n, D].
        mix: [K, T, F].
        shift: [K, T, 1, D].
        carry: [K, T, 1, 1].
        start: [T, n, D], or None, which is 0.
        down: [K, T, D, r].
        bias: [K, T, 1, r].
        up: [K, T, r, D].
        activation: `relu` or `gelu`.
        low: the precision of products with `down` and `up`; sums keep the inputs'.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Returns the last states; see the class."""
        taps, mix, shift, carry, start, down, bias, up, activation, low = inputs
        with torch.autocast(taps.device.type, enabled=False):
            reads = torch.bmm(mix, taps.flatten(2)).view(*mix.shape[:2], *taps.shape[2:]).add_(shift)
            down, bias, up = down.to(low), bias.to(low), up.to(low)
            inner = torch.empty(*reads.shape[:3], down.shape[-1], dtype=low, device=taps.device)
            state = start
            for k in range(len(reads)):
                read = reads[k]  # written to; of `unbind` a compiled graph would be of this n alone
                if state is not None:
                    read.addcmul_(carry[k], state)
                torch.baddbmm(bias[k], read.to(low), down[k], out=inner[k])
                state = _plus(read, ACTIVATIONS[activation](inner[k]), up[k], torch.empty_like(read))
        ctx.save_for_backward(taps, mix, carry, start, down, up, reads, inner)
        ctx.activation, ctx.low = activation, low
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of `apply`'s tensors."""
        taps, mix, carry, start, _, up, reads, inner = ctx.saved_tensors
        with torch.autocast(taps.device.type, enabled=False):
            last = grads[0].contiguous()
            d_reads, slopes, ends = _descend(ctx, last)
            hidden = ACTIVATIONS[ctx.activation](inner)
            d_carry = torch.zeros_like(carry)
            within = _dots(d_reads[1:], reads[:-1]) + _dots(hidden[:-1], ends[:-1])
            d_carry[1:, :, 0, 0] = within.to(carry.dtype)
            d_start = None
            if start is not None:
                d_carry[0, :, 0, 0] = _dots(d_reads[0], start)
                d_start = carry[0] * d_reads[0]
            scale = _next_carry(carry)
            slopes.mul_(scale)
            d_down = _products(reads.to(ctx.low), slopes)
            hidden = hidden.mul_(scale)
            d_up = torch.empty_like(up)
            d_up[:-1] = _products(hidden[:-1], d_reads[1:].to(ctx.low))
            d_up[-1] = torch.bmm(hidden[-1].mT, last.to(ctx.low))
            wide, dtype = d_reads.flatten(2), taps.dtype
            d_taps = torch.bmm(mix.mT, wide).view_as(taps) if ctx.needs_input_grad[0] else None
            d_mix, d_shift = torch.bmm(wide, taps.flatten(2).mT), d_reads.sum(2, keepdim=True)
            d_bias = slopes.sum(2, keepdim=True)
        weights = (d_down.to(dtype), d_bias.to(dtype), d_up.to(dtype))
        return (d_taps, d_mix, d_shift, d_carry, d_start, *weights, None, None)


def _descend(ctx: Any, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of what blocks read, and of their inner values and of what they project back.

    The second and the third are as if the next block took a block's state whole: `_next_carry` is left out.
    """
    _, _, carry, _, down, up, reads, inner = ctx.saved_tensors
    d_reads, slopes, ends = (torch.empty_like(each) for each in (reads, inner, inner))
    after = last
    for k in reversed(range(len(reads))):
        torch.bmm(after.to(ctx.low), up[k].mT, out=ends[k])
        _derived(ctx.activation, ends[k], inner[k], slopes[k])
        after = _plus(after, slopes[k], down[k].mT, d_reads[k])
        if k + 1 < len(reads):
            after.mul_(carry[k + 1])
    return d_reads, slopes, ends


def _plus(wide: Tensor, hidden: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Writes `wide` plus a product [T, n, D] and returns it; low precision rounds the product alone."""
    if hidden.dtype == wide.dtype:
        return torch.baddbmm(wide, hidden, weight, out=out)
    return torch.add(wide, torch.bmm(hidden, weight), out=out)


def _derived(activation: str, grad: Tensor, inner: Tensor, out: Tensor) -> None:
    """Writes the gradient of an activation's input."""
    if activation == "relu":
        torch.ops.aten.threshold_backward.grad_input(grad, inner, 0, grad_input=out)
    else:
        torch.ops.aten.gelu_backward.grad_input(grad, inner, grad_input=out)


def _next_carry(carry: Tensor) -> Tensor:
    """Returns for each block how much of its state the next one takes [K, T, 1, 1], 1 after the last."""
    return torch.cat([carry[1:], torch.ones_like(carry[:1])])


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Returns left^T right [K, T, a, b] of [K, T, n, a] and [K, T, n, b]."""
    return torch.bmm(left.flatten(0, 1).mT, right.flatten(0, 1)).unflatten(0, left.shape[:2])


def _dots(left: Tensor, right: Tensor) -> Tensor:
    """Returns the sums of elementwise products over the last two dimensions, without these products.

    At least in float32: over all items and places they pass what fp16 holds long before any other gradient.
    """
    dtype = torch.promote_types(left.dtype, torch.float32)
    across, along = left.to(dtype).flatten(-2)[..., None, :], right.to(dtype).flatten(-2)[..., None]
    return torch.matmul(across, along)[..., 0, 0]
