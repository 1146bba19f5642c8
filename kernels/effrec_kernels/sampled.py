"""Softmax cross-entropy against sampled negatives, without logits, id or gather tensors of full size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .arguments import sampled_problem
from .checks import check_choice, check_reduction
from .evaluate import Reduction, evaluate

SAMPLERS = ("uniform",)


def sampled_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_negatives: int | None = None,
    negatives: Tensor | None = None,
    sampler: str = "uniform",
    seed: int = 0,
    step: int = 0,
    row_offset: int | Tensor = 0,
    correction: str = "exact",
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    return_lse: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Any:
    """Returns softmax cross-entropy of each row's target against N negatives of its own.

    For row i with state e, positive y and negatives n_j: z_0 = <e, c_y>, z_j = <e, c_nj> + k, loss =
    log(exp z_0 + sum_j exp z_j) - z_0 over the usable j. A negative that is the positive (a hit) is not
    usable and adds nothing, under every `correction`; an id drawn twice adds twice. A row whose negatives
    are all hits has loss 0 and no gradient (the sampled-softmax loss of the CCE- paper, arXiv 2509.09682).

    Args:
        hidden: [M, D], float16, bfloat16, float32 or float64, any strides.
        items: [V, D], the item table or a slice of it; gradients come in its dtype, summed in float32.
        targets: int [M] in [0, V), or `ignore_index` for a row without loss, whatever its state holds.
        num_negatives: N, drawn anew in backward: no id tensor exists. Exactly one of this and `negatives`.
        negatives: int [M, N] ids; `ignore_index` (if negative) in a slot leaves it unused.
        sampler: `uniform` over [0, V) with replacement.
        seed: 64-bit key of the draws.
        step: in [0, 2^32); another step draws other ids.
        row_offset: global number of the first row, or int64 [M] of all rows: what makes ranks and
            micro-batches draw what one process would.
        correction: k. `exact` log((V-1)/(N-r)) with r unusable negatives in the row: exp sums estimate the
            full softmax's without bias; `constant` log((V-1)/(N+1)); `none` 0, for `negatives` that are not
            uniform draws.
        row_weights: [M], multiplies rows' losses.
        ignore_index: see `targets`.
        reduction: `mean` over rows with a target (0 if there are none), `sum` or `none` for [M].
        normalizer: divides the sum in place of the count: the whole step's count where this is part of it.
        return_lse: return (loss, log-sum-exp [M]) instead, both differentiable.
        chunk_bytes: bound on intermediates (at least one row's are made); None suits the device.
        kernel: `auto`, `torch`, `reference` or `triton`; never changes what is computed.

    Returns:
        float32 (float64 for float64 inputs): a number, or [M] for `none`. Operands are rounded to autocast's
        dtype where it is on, else to that of `hidden`; the softmax runs in float32.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or an option has no such value.
        IndexError: an id is outside the table (always on a CPU; on CUDA with EFFREC_DEBUG=1).
        KernelUnavailable: `kernel` cannot run here.
        RuntimeError: a second derivative is asked for.
    """
    check_choice("sampler", sampler, SAMPLERS)
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
        chunk_bytes=chunk_bytes,
        correction=correction,
    )
    return evaluate(problem, Reduction(reduction, row_weights, normalizer), kernel, return_lse)
