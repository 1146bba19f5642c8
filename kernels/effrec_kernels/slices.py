"""What one rank computes of a loss over a catalogue that is spread over ranks, and how it is merged.

For each row a slice gives the log-sum-exp of the negatives it holds and, where it holds it, the positive's
logit. Both are merged by a maximum and a sum over ranks; what flows back is shared out by probability.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from .candidates import correction_term, exact_term
from .compute import compute
from .objectives import Upstream, lowest_peak
from .parts import Sums
from .problem import Problem
from .ranks import Ranks
from .samplers import NO_ITEM
from .saved import keep, kept

# Beyond it softplus is its argument, in float64 too.
_LINEAR = 50


def merged_rows(
    whole: Problem, hidden: Tensor, items: Tensor, first_item: int, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Returns loss and log-sum-exp [M_r] of own rows, differentiable, zero where there is no target.

    Args:
        whole: the problem of all rows over the whole catalogue; its `items` are not looked at.
        hidden: own rows.
        items: own slice of the table.
        first_item: number of its first row.
        ranks: all call this together.
    """
    problem = slice_of(whole, items.detach(), first_item)
    positive, others, usable = _Merged.apply(hidden, items, problem, ranks)
    others = others + _added(whole, usable)
    # log(exp z_0 + exp A) - z_0, in which a small loss keeps its digits.
    loss = softplus(others - positive, threshold=_LINEAR)
    ignored = ranks.own(~whole.has_target)
    return loss.masked_fill(ignored, 0), (loss + positive).masked_fill(ignored, 0)


def _added(whole: Problem, usable: Tensor) -> Tensor | float:
    """Returns k where it is the same for all negatives of a row, of which `usable` [M_r] can be used."""
    if whole.num_negatives == 0 or whole.log_q is not None:
        return 0.0
    if whole.correction == "exact":
        return exact_term(whole, usable)
    return correction_term(whole, usable, usable)


def slice_of(whole: Problem, items: Tensor, first: int) -> Problem:
    """Returns the part of a problem that one rank computes, its items numbered from 0."""
    after = first + len(items)
    here = (whole.targets >= first) & (whole.targets < after)
    targets = torch.where(here, whole.targets - first, len(items))
    return replace(
        whole,
        items=items,
        targets=targets.masked_fill_(~whole.has_target, NO_ITEM),
        # A number that no item has, in whatever slice.
        ignore_index=NO_ITEM,
        log_q=None if whole.log_q is None else whole.log_q[first:after],
        correction="none" if whole.log_q is None else "logq",
        objective="apart",
        first_item=first,
    )


class _Merged(torch.autograd.Function):
    """The positives' logits of own rows, the log-sum-exp of their negatives, and how many those are."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, items: Tensor, problem: Problem, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns [M_r] each. What is local is merged by a maximum and a sum over ranks."""
        positive, mine, usable = compute(problem, None, Sums(None, None))
        positive = torch.where(_is_here(problem), positive, 0)
        peak = lowest_peak(ranks.max_(mine.clone()))
        merged = ranks.sum_(torch.stack([positive, (mine - peak).exp_(), usable]))
        others = merged[1].log_().add_(peak)
        keep(ctx, replace(problem, items=items).flat(), hidden, mine, others)
        ctx.ranks = ranks
        results = ranks.own(merged[0]).clone(), ranks.own(others).clone(), ranks.own(merged[2]).clone()
        ctx.mark_non_differentiable(results[2])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Returns the gradient by own rows, summed over ranks, and that by own items."""
        flat, (hidden, mine, others) = kept(ctx)
        problem = Problem.of(flat)
        items = problem.items
        of_positive, of_others = ctx.ranks.gather(torch.stack(upstream[:2], dim=1)).unbind(1)
        # A slice's part of what flows into the log-sum-exp; nothing where it has no negative.
        share = torch.where(mine > float("-inf"), (mine - others).exp(), 0)
        flows = Upstream(torch.where(_is_here(problem), of_positive, 0), of_others * share)
        dtype = problem.accumulate_dtype
        of_hidden, of_items = (
            torch.zeros(tensor.shape, dtype=dtype, device=tensor.device) if wanted else None
            for tensor, wanted in zip((problem.hidden, items), ctx.needs_input_grad[:2], strict=True)
        )
        compute(problem, flows, Sums(of_hidden, of_items))
        if of_hidden is not None:
            of_hidden = ctx.ranks.sum_to_owners(of_hidden).to(hidden.dtype)
        return of_hidden, None if of_items is None else of_items.to(items.dtype), None, None


def _is_here(problem: Problem) -> Tensor:
    """Returns bool [M]: whether the row's positive is an item of the slice."""
    return (problem.targets >= 0) & (problem.targets < len(problem.items))
