"""A row's loss from its candidates' logits, and the logits' gradient in their place.

Logits come as [m, S] with the positive in column 0 and -inf at masked candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .problem import Problem

# What is known of m rows, [m] each: loss and log-sum-exp, or what the objective has in their place.
Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class Upstream:
    """What flows back into rows: the gradients of the final result by each row's loss and log-sum-exp.

    Attributes:
        loss: [m], zero in rows without loss.
        lse: [m], or None where nothing depends on it.
    """

    loss: Tensor
    lse: Tensor | None

    def take(self, at: Tensor, valid: Tensor) -> Upstream:
        """Returns the part of rows `at`, zero where not `valid`."""
        lse = None if self.lse is None else self.lse.index_select(0, at).masked_fill_(~valid, 0)
        return Upstream(self.loss.index_select(0, at).masked_fill_(~valid, 0), lse)

    def __getitem__(self, some: slice) -> Upstream:
        return Upstream(self.loss[some], None if self.lse is None else self.lse[some])

    def __truediv__(self, by: float) -> Upstream:
        """Returns all of it divided by a number."""
        if by == 1:
            return self
        return Upstream(self.loss / by, None if self.lse is None else self.lse / by)

    @property
    def of_negatives(self) -> Tensor:
        """The factor of softmax probabilities in the gradient by negative logits."""
        return self.loss if self.lse is None else self.loss + self.lse

    def of_positive(self, others: Tensor, own: Tensor) -> Tensor:
        """Returns the gradient by the positive's logit.

        Args:
            others: [m], summed probability of the negatives: 1 - p without its rounding.
            own: [m], probability of the positive.
        """
        gradient = -self.loss * others
        return gradient if self.lse is None else gradient + self.lse * own


def softmax_(logits: Tensor, upstream: Upstream | None) -> tuple[Tensor, Tensor]:
    """Returns loss and log-sum-exp [m] of each row; `logits` become their gradients if `upstream` is given.

    loss = log(sum_j exp z_j) - z_0, by 1 - p_0 = sum of the others and log1p, so that a small loss keeps its
    digits.
    """
    positive = logits[:, 0].clone()
    peak = logits.amax(dim=1)
    weights = logits.sub_(peak[:, None]).exp_()
    own, others = weights[:, 0].clone(), weights[:, 1:].sum(dim=1)
    loss = softmax_loss(positive, peak, others)
    if upstream is not None:
        inverse = 1 / (own + others)
        weights.mul_((upstream.of_negatives * inverse)[:, None])
        weights[:, 0] = upstream.of_positive(others * inverse, own * inverse)
    return loss, loss + positive


def softmax_loss(positive: Tensor, peak: Tensor, others: Tensor) -> Tensor:
    """Returns log(exp(z_0 - peak) + others) + peak - z_0, where others = sum of exp(z_j - peak) without z_0.

    The larger of the two summands is 1 or more, so log1p has an argument above -1 and no digits are lost.
    """
    return (peak - positive) + torch.log1p(torch.expm1(positive - peak) + others)


def binary_(logits: Tensor, upstream: Upstream | None, beta: float) -> tuple[Tensor, Tensor]:
    """Returns -beta log s(z_0) - sum_j log(1 - s(z_j)) of each row, and zeros in place of a log-sum-exp.

    Softplus replaces the logarithms of sigmoids: no clamp is needed and s(z_0)^beta is never formed.
    """
    positive = logits[:, 0].clone()
    loss = beta * softplus(-positive) + softplus(logits[:, 1:]).sum(dim=1)
    if upstream is not None:
        logits.sigmoid_().mul_(upstream.loss[:, None])
        logits[:, 0] = -beta * torch.sigmoid(-positive) * upstream.loss
    return loss, torch.zeros_like(loss)


def apart_(logits: Tensor, upstream: Upstream | None) -> Results:
    """Returns z_0, log(sum_j exp z_j) without z_0, -inf where no negative is usable, and how many are.

    What flows back into the first is `upstream.loss`, into the second `upstream.lse`.
    """
    positive, others = logits[:, 0].clone(), logits[:, 1:]
    usable = (others != float("-inf")).sum(dim=1).to(logits.dtype)
    peak = lowest_peak(others.amax(dim=1))
    weights = others.sub_(peak[:, None]).exp_()
    total = weights.sum(dim=1)
    if upstream is not None:
        assert upstream.lse is not None
        weights.mul_(per_weight(upstream.lse, total)[:, None])
        logits[:, 0] = upstream.loss
    return positive, peak + total.log(), usable


def lowest_peak(peak: Tensor) -> Tensor:
    """Returns a maximum to subtract: finite, so that -inf never meets -inf."""
    return peak.clamp(min=torch.finfo(peak.dtype).min)


def per_weight(upstream: Tensor, total: Tensor) -> Tensor:
    """Returns `upstream` shared out over weights of this total; 0 where there are none."""
    return upstream / torch.where(total > 0, total, 1)


def objective_(problem: Problem, logits: Tensor, upstream: Upstream | None) -> Results:
    """Returns what the problem's objective makes of the rows' logits, which it overwrites."""
    if problem.objective == "apart":
        return apart_(logits, upstream)
    if problem.objective == "binary":
        return binary_(logits, upstream, problem.beta)
    return softmax_(logits, upstream)
