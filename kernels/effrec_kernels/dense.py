"""The sampled softmax as it is usually written in PyTorch: the baseline that the others are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import Form, Frame, Negatives, Stream, sampled_problem
from .candidates import all_negatives, correction_term
from .checks import check_reduction
from .evaluate import Reduction
from .looks import check_ids
from .popularity import Popularity
from .problem import Problem


def sampled_cross_entropy_dense(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_negatives: int | None = None,
    negatives: Tensor | None = None,
    sampler: str | Popularity = "uniform",
    sharing: str | int | Tensor = "row",
    sharing_stride: int = 1,
    in_batch: int = 0,
    seed: int = 0,
    step: int = 0,
    rng_state: Tensor | None = None,
    row_offset: int | Tensor = 0,
    correction: str = "exact",
    log_q: Tensor | None = None,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Returns the values of `sampled_cross_entropy` by plain autograd over an [M, N, D] tensor.

    This is CE- of the CCE- paper (arXiv 2509.09682): rows with a target are selected, ids [M, N] drawn,
    their rows gathered and multiplied, and autograd keeps it all: about 3 tensors of M*N*D numbers at the
    peak, also where rows share negatives. Arguments, result and errors are those of
    `sampled_cross_entropy`; second derivatives exist.
    """
    check_reduction(reduction, normalizer)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch, log_q)
    frame = Frame(row_weights, ignore_index, kernel="torch")
    problem = sampled_problem(hidden, items, targets, drawn, Form(correction, temperature), frame)
    check_ids(problem)
    valid = problem.has_target
    loss = hidden.new_zeros(len(hidden), dtype=problem.accumulate_dtype)
    loss = loss.masked_scatter(valid, _losses(problem, valid))
    return Reduction(reduction, row_weights, normalizer)(loss, valid)


def _losses(problem: Problem, valid: Tensor) -> Tensor:
    """Returns the losses of the rows with a target, one after the other."""
    hidden, targets = problem.hidden[valid], problem.targets[valid]
    ids = all_negatives(problem)[valid]
    unusable = (ids == targets[:, None]) | (ids < 0) | (ids >= len(problem.items))
    ids = ids.masked_fill(unusable, 0)
    gathered = problem.items[ids]
    hidden = hidden / problem.temperature
    negative = (hidden[:, None] * gathered).sum(dim=2).to(problem.accumulate_dtype)
    positive = (hidden * problem.items[targets]).sum(dim=1).to(problem.accumulate_dtype)
    negative = negative + correction_term(problem, unusable, ids)
    logits = torch.cat([positive[:, None], negative.masked_fill(unusable, float("-inf"))], dim=1)
    return logits.logsumexp(dim=1) - positive
