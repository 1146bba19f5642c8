"""The losses in float64, written to be obviously right: what every kernel is measured against.

For a row with hidden state e, positive y and negatives n_1 .. n_N:

    z_0 = <e, c_y> / t    z_j = <e, c_nj> / t + k    for every usable n_j, t the temperature
    softmax:  L = log(exp z_0 + sum_j exp z_j),  loss = L - z_0
    binary:   loss = -beta log s(z_0) - sum_j log(1 - s(z_j))

A negative is usable unless it is the positive itself (a hit) or no item (a negative number). An id drawn
twice is two terms. k = log((V-1)/(N-r)) with r unusable negatives (`exact`), log((V-1)/(N+1)) (`constant`), 0
(`none`) or -log(N q) with q the probability that a slot holds the item (`logq`). Rows that share negatives
are given them in a row of `negatives` each: the formulas know nothing of sharing. Rows whose target is
`ignore_index` have loss 0 and no gradient.

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


def usable_slots(negatives: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Returns bool [M, N]: neither a hit, nor an unused slot, nor in a row without a target."""
    return (negatives != targets[:, None]) & (negatives >= 0) & (targets != ignore_index)[:, None]


def corrections(
    kind: str, num_items: int, negatives: Tensor, usable: Tensor, log_q: Tensor | float | None = None
) -> Tensor:
    """Returns k of each slot, float64 [M, N].

    Args:
        kind: exact, constant, none or logq.
        num_items: V.
        negatives: int [M, N].
        usable: bool [M, N].
        log_q: for logq, [V] or one number for all items, which is -log V if not given.
    """
    number = negatives.shape[1]
    if kind != "logq":
        rows = [correction_of(kind, num_items, number, count) for count in usable.sum(dim=1).tolist()]
        return torch.tensor(rows, dtype=torch.float64, device=negatives.device)[:, None].expand(-1, number)
    if log_q is None:
        log_q = -math.log(num_items)
    if isinstance(log_q, float):
        return torch.full(negatives.shape, -math.log(number) - log_q).double().to(negatives.device)
    return -math.log(number) - log_q.double()[negatives.masked_fill(~usable, 0).long()]


def sampled_rows(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    correction: str = "exact",
    ignore_index: int = -100,
    temperature: float = 1.0,
    log_q: Tensor | float | None = None,
) -> Rows:
    """Returns loss and log-sum-exp, float64 [M] each, of the softmax over each row's candidates."""
    usable = usable_slots(negatives, targets, ignore_index)
    positive, negative = _logits(
        hidden.double() / temperature, items, targets, negatives, usable, ignore_index
    )
    negative = negative + corrections(correction, len(items), negatives, usable, log_q)
    candidates = torch.cat([positive[:, None], negative.masked_fill(~usable, -math.inf)], dim=1)
    lse = torch.logsumexp(candidates, dim=1)
    ignored = targets == ignore_index
    return (lse - positive).masked_fill(ignored, 0), lse.masked_fill(ignored, 0)


def sampled_gradients(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    upstream: Tensor,
    *,
    correction: str = "exact",
    ignore_index: int = -100,
    temperature: float = 1.0,
    log_q: Tensor | float | None = None,
) -> Rows:
    """Returns the gradients of sum_i upstream_i loss_i by hidden [M, D] and items [V, D], float64.

    d e_i = g_i / t [(p_0 - 1) c_y + sum_j p_j c_nj],  d c_v = sum_i g_i / t e_i [(p_0 - 1) 1(y = v) + sum_j
    p_j 1(n_j = v)].
    """
    hidden, items, upstream = hidden.double(), items.double(), upstream.double()
    usable = usable_slots(negatives, targets, ignore_index)
    k = corrections(correction, len(items), negatives, usable, log_q)
    of_hidden, of_items = torch.zeros_like(hidden), torch.zeros_like(items)
    for i, target in enumerate(targets.tolist()):
        if target == ignore_index:
            continue
        candidates = torch.cat([targets[i, None], negatives[i][usable[i]]]).long()
        logits = items[candidates] @ hidden[i] / temperature
        logits[1:] += k[i][usable[i]]
        slopes = torch.softmax(logits, dim=0) / temperature
        slopes[0] -= 1 / temperature
        for item, slope in zip(candidates.tolist(), slopes * upstream[i], strict=True):
            of_hidden[i] += slope * items[item]
            of_items[item] += slope * hidden[i]
    return of_hidden, of_items


def full_rows(
    hidden: Tensor, items: Tensor, targets: Tensor, *, ignore_index: int = -100, temperature: float = 1.0
) -> Rows:
    """Returns loss and log-sum-exp, float64 [M] each, of the softmax over all V items."""
    ignored = targets == ignore_index
    logits = hidden.double().masked_fill(ignored[:, None], 0) @ items.double().T / temperature
    lse = torch.logsumexp(logits, dim=1)
    positive = logits.gather(1, targets.masked_fill(ignored, 0).long()[:, None]).squeeze(1)
    return (lse - positive).masked_fill(ignored, 0), lse.masked_fill(ignored, 0)


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
    temperature: float = 1.0,
) -> Tensor:
    """Returns the loss, float64 [M], of a sigmoid for the positive and for each usable negative."""
    usable = usable_slots(negatives, targets, ignore_index)
    positive, negative = _logits(
        hidden.double() / temperature, items, targets, negatives, usable, ignore_index
    )
    others = logsigmoid(-negative).masked_fill(~usable, 0).sum(dim=1)
    return (-beta * logsigmoid(positive) - others).masked_fill(targets == ignore_index, 0)


def bucket_rows(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    rows: Tensor,
    negatives: Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Returns the loss, float64 [M], of SCE, and bool [M], whether a row is in any bucket.

    Args:
        hidden: [M, D].
        items: [V, D].
        targets: int [M].
        rows: int [G, b_x], the positions of each bucket.
        negatives: int [G, b_y], its items.
        ignore_index: targets of this value have no loss.
        temperature: divides products.
    """
    losses: list[list[Tensor]] = [[] for _ in targets]
    for own, others in zip(rows.tolist(), negatives, strict=True):
        for row in own:
            loss, _ = sampled_rows(
                hidden[row, None],
                items,
                targets[row, None],
                others[None],
                correction="none",
                ignore_index=ignore_index,
                temperature=temperature,
            )
            losses[row].append(loss[0])
    none = torch.zeros((), dtype=torch.float64, device=hidden.device)
    covered = torch.tensor([bool(found) for found in losses], device=hidden.device)
    largest = [torch.stack(found).max() if found else none for found in losses]
    return torch.stack(largest), covered & (targets != ignore_index)


def _logits(
    hidden: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, usable: Tensor, ignore_index: int
) -> Rows:
    """Returns <e, c_y> [M] and <e, c_nj> [M, N] in float64, of item 0 and state 0 where nothing is usable."""
    ignored = targets == ignore_index
    hidden, items = hidden.double().masked_fill(ignored[:, None], 0), items.double()
    positive = (hidden * items[targets.masked_fill(ignored, 0).long()]).sum(dim=1)
    negative = (hidden[:, None] * items[negatives.masked_fill(~usable, 0).long()]).sum(dim=2)
    return positive, negative
