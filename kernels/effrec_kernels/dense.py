"""The sampled softmax as it is usually written in PyTorch: the baseline that the others are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import sampled_problem
from .candidates import correction_term
from .checks import check_ids, check_reduction
from .evaluate import Reduction
from .problem import Problem
from .rng import draw_negatives


def sampled_cross_entropy_dense(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_negatives: int | None = None,
    negatives: Tensor | None = None,
    seed: int = 0,
    step: int = 0,
    row_offset: int | Tensor = 0,
    correction: str = "exact",
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Returns the values of `sampled_cross_entropy` by plain autograd over an [M, N, D] tensor.

    This is CE- of the CCE- paper (arXiv 2509.09682): rows with a target are selected, ids [M, N] drawn,
    their rows gathered and multiplied, and autograd keeps it all: about 3 tensors of M*N*D numbers at the
    peak. Arguments, result and errors are those of `sampled_cross_entropy`; second derivatives exist.
    """
    check_reduction(reduction, normalizer)
    problem = sampled_problem(
        hidden,
        items,
        targets,
        num_negatives=num_negatives,
        negatives=negatives,
        seed=seed,
        step=step,
        row_offset=row_offset,
        row_weights=row_weights,
        ignore_index=ignore_index,
        chunk_bytes=None,
        correction=correction,
    )
    check_ids(problem)
    valid = problem.targets != ignore_index
    loss = hidden.new_zeros(len(hidden), dtype=problem.accumulate_dtype)
    loss = loss.masked_scatter(valid, _losses(problem, valid))
    return Reduction(reduction, row_weights, normalizer)(loss, problem)


def _losses(problem: Problem, valid: Tensor) -> Tensor:
    """Returns the losses of the rows with a target, one after the other."""
    hidden, targets = problem.hidden[valid], problem.targets[valid]
    if problem.negatives is None:
        ids = draw_negatives(
            problem.rows[valid],
            problem.num_negatives,
            len(problem.items),
            seed=problem.seed,
            step=problem.step,
        )
    else:
        ids = problem.negatives[valid].long()
    unusable = (ids == targets[:, None]) | (ids < 0)
    gathered = problem.items[ids.clamp(min=0)]
    negative = (hidden[:, None] * gathered).sum(dim=2).to(problem.accumulate_dtype)
    positive = (hidden * problem.items[targets]).sum(dim=1).to(problem.accumulate_dtype)
    negative = negative + correction_term(problem, unusable)
    logits = torch.cat([positive[:, None], negative.masked_fill(unusable, float("-inf"))], dim=1)
    return logits.logsumexp(dim=1) - positive
