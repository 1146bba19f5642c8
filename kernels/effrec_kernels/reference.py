"""The losses in float64, written to be obviously right: what every kernel is measured against.

For a row with hidden state e, positive y and negatives n_1 .. n_N:

    z_0 = <e, c_y>        z_j = <e, c_nj> + k        for every usable n_j
    softmax:  L = log(exp z_0 + sum_j exp z_j),  loss = L - z_0
    binary:   loss = -beta log s(z_0) - sum_j log(1 - s(z_j))

A negative is usable unless it is the positive itself (a hit) or no item (`ignore_index`). An id drawn twice
is two terms. k = log((V-1)/(N-r)) with r unusable negatives (`exact`), log((V-1)/(N+1)) (`constant`) or 0
(`none`). Rows whose target is `ignore_index` have loss 0 and no gradient.

The functions `*_rows` are differentiable by autograd; `*_gradients` are the same derivatives written out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Rows = tuple[Tensor, Tensor]


def correction_of(kind: str, num_items: int, num_negatives: int, num_usable: int) -> float:
    """Returns k of a row, for `kind` one of exact, constant and none; V - 1 counts as 1 when V is 1."""
    others = max(num_items - 1, 1)
    if kind == "none":
        return 0.0
    if kind == "constant":
        return math.log(others / (num_negatives + 1))
    return math.log(others / num_usable) if num_usable else 0.0


def usable_ids(negatives: Tensor, target: int, ignore_index: int = -100) -> Tensor:
    """Returns the ids [n] of one row's negatives [N] that are neither its target nor an unused slot."""
    unused = (negatives == ignore_index) & (negatives < 0)
    return negatives[(negatives != target) & ~unused].long()


def sampled_rows(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    correction: str = "exact",
    ignore_index: int = -100,
) -> Rows:
    """Returns loss and log-sum-exp, float64 [M] each, of the softmax over each row's candidates."""
    hidden, items = hidden.double(), items.double()
    losses, lses = [], []
    for state, target, drawn in zip(hidden, targets.tolist(), negatives, strict=True):
        if target == ignore_index:
            losses.append(state.new_zeros(()))
            lses.append(state.new_zeros(()))
            continue
        ids = usable_ids(drawn, target, ignore_index)
        k = correction_of(correction, len(items), len(drawn), len(ids))
        positive = items[target] @ state
        lse = torch.logsumexp(torch.cat([positive[None], items[ids] @ state + k]), dim=0)
        losses.append(lse - positive)
        lses.append(lse)
    return _stack(losses, hidden), _stack(lses, hidden)


def sampled_gradients(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    upstream: Tensor,
    *,
    correction: str = "exact",
    ignore_index: int = -100,
) -> Rows:
    """Returns the gradients of sum_i upstream_i loss_i by hidden [M, D] and items [V, D], float64.

    d e_i = g_i [(p_0 - 1) c_y + sum_j p_j c_nj],  d c_v = sum_i g_i e_i [(p_0 - 1) 1(y = v) + sum_j p_j
    1(n_j = v)].
    """
    hidden, items, upstream = hidden.double(), items.double(), upstream.double()
    of_hidden, of_items = torch.zeros_like(hidden), torch.zeros_like(items)
    for i, target in enumerate(targets.tolist()):
        if target == ignore_index:
            continue
        ids = usable_ids(negatives[i], target, ignore_index)
        k = correction_of(correction, len(items), negatives.shape[1], len(ids))
        candidates = [target, *ids.tolist()]
        logits = [items[target] @ hidden[i]] + [items[n] @ hidden[i] + k for n in ids.tolist()]
        slopes = torch.softmax(torch.stack(logits), dim=0)
        slopes[0] -= 1
        for item, slope in zip(candidates, slopes * upstream[i], strict=True):
            of_hidden[i] += slope * items[item]
            of_items[item] += slope * hidden[i]
    return of_hidden, of_items


def full_rows(hidden: Tensor, items: Tensor, targets: Tensor, *, ignore_index: int = -100) -> Rows:
    """Returns loss and log-sum-exp, float64 [M] each, of the softmax over all V items."""
    everyone = torch.arange(len(items), device=items.device).expand(len(hidden), -1)
    return sampled_rows(hidden, items, targets, everyone, correction="none", ignore_index=ignore_index)


def full_gradients(
    hidden: Tensor, items: Tensor, targets: Tensor, upstream: Tensor, *, ignore_index: int = -100
) -> Rows:
    """Returns `sampled_gradients` where every other item is a negative and k is 0."""
    everyone = torch.arange(len(items), device=items.device).expand(len(hidden), -1)
    return sampled_gradients(
        hidden, items, targets, everyone, upstream, correction="none", ignore_index=ignore_index
    )


def binary_rows(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    beta: float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """Returns the loss, float64 [M], of a sigmoid for the positive and for each usable negative."""
    hidden, items = hidden.double(), items.double()
    losses = []
    for state, target, drawn in zip(hidden, targets.tolist(), negatives, strict=True):
        if target == ignore_index:
            losses.append(state.new_zeros(()))
            continue
        others = items[usable_ids(drawn, target, ignore_index)] @ state
        losses.append(-beta * logsigmoid(items[target] @ state) - logsigmoid(-others).sum())
    return _stack(losses, hidden)


def _stack(rows: list[Tensor], hidden: Tensor) -> Tensor:
    return torch.stack(rows) if rows else hidden.sum(dim=1)
