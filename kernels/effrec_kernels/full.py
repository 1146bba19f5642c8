"""The route of the full softmax: every item a candidate, a block of logits alive at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .chunks import full_block, slices
from .objectives import Results, lowest_peak, per_weight, softmax_loss
from .parts import Part, Sums, push
from .problem import Problem
from .products import divide_, mm, row_dots


class Full:
    """Softmax cross-entropy over the catalogue, its items taken in blocks with a running maximum and sum.

    With one block the logits are turned into their gradients where they stand; with more they are computed
    a second time.

    Args:
        problem: what to compute.
    """

    def __init__(self, problem: Problem) -> None:
        num_items, num_rows = len(problem.items), len(problem.targets)
        self.rows, width = full_block(num_rows, num_items, problem.chunk_bytes)
        self.table = problem.working(problem.items)
        self.blocks = list(slices(num_items, width))
        self.temperature = problem.temperature
        self.apart = problem.objective == "apart"

    def chunks(self, rows: Tensor) -> Iterable[Tensor]:
        """Returns the rows a block of logits at a time."""
        return rows.split(self.rows)

    def __call__(self, part: Part, sums: Sums) -> Results:
        """Returns loss and log-sum-exp [m], and adds the chunk's gradients to `sums`."""
        positive = row_dots(self.table.index_select(0, part.positives), part.hidden)
        divide_(positive, self.temperature)
        others = torch.zeros_like(positive)
        peak = lowest_peak(torch.full_like(positive, float("-inf"))) if self.apart else positive
        for block in self.blocks:
            logits = self._other_logits(part, block)
            higher = torch.maximum(peak, logits.amax(dim=1))
            weights = logits.sub_(higher[:, None]).exp_()
            others = others * (peak - higher).exp_() + weights.sum(dim=1)
            peak = higher
        if part.upstream is not None:
            kept = weights if len(self.blocks) == 1 else None
            self._push(part, sums, positive, peak, others, kept)
        if self.apart:
            return positive, peak + others.log(), len(self.table) - (part.targets < len(self.table)).to(peak)
        loss = softmax_loss(positive, peak, others)
        return loss, loss + positive

    def _other_logits(self, part: Part, block: slice) -> Tensor:
        """Returns the logits [m, width] of a block of items, -inf at the rows' own targets."""
        logits = divide_(mm(part.hidden, self.table[block].t()), self.temperature)
        return put_(logits, part.targets, block, torch.full_like(logits[:, 0], float("-inf")))

    def _push(
        self, part: Part, sums: Sums, positive: Tensor, peak: Tensor, others: Tensor, kept: Tensor | None
    ) -> None:
        """Adds the gradients to `sums`, from the weights `kept` of the only block or computed again."""
        of_positive, scale = self._upstream(part, positive, peak, others)
        for block in self.blocks:
            weights = self._other_logits(part, block).sub_(peak[:, None]).exp_() if kept is None else kept
            slopes = put_(weights.mul_(scale[:, None]), part.targets, block, of_positive)
            push(slopes, part, self.table[block], Sums(sums.hidden, _rows(sums.items, block)))

    def _upstream(self, part: Part, positive: Tensor, peak: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradient by the positive's logit, and what the others' weights are multiplied by."""
        assert part.upstream is not None
        if self.apart:
            assert part.upstream.lse is not None
            return part.upstream.loss, per_weight(part.upstream.lse, others)
        own = torch.exp(positive - peak)
        inverse = 1 / (own + others)
        return part.upstream.of_positive(
            others * inverse, own * inverse
        ), part.upstream.of_negatives * inverse


def put_(matrix: Tensor, columns: Tensor, block: slice, values: Tensor) -> Tensor:
    """Returns `matrix` [m, width] with values[i] written at item columns[i] where that lies in `block`."""
    inside = (columns >= block.start) & (columns < block.stop)
    at = (columns - block.start).clamp_(0, matrix.shape[1] - 1)[:, None]
    return matrix.scatter_(1, at, torch.where(inside[:, None], values[:, None], matrix.gather(1, at)))


def _rows(tensor: Tensor | None, block: slice) -> Tensor | None:
    return None if tensor is None else tensor[block]
