"""Softmax cross-entropy against sampled negatives, without logits, id or gather tensors of full size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .arguments import Form, Frame, Negatives, Stream, sampled_problem
from .checks import check_reduction
from .evaluate import Reduction, evaluate
from .popularity import Popularity


def sampled_cross_entropy(
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
    return_lse: bool = False,
    deterministic: bool = False,
    sparse: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Any:
    """Returns softmax cross-entropy of each row's target against N negatives (arXiv 2509.09682).

    For row i with state e, positive y and negatives n_j: z_0 = <e, c_y> / t, z_j = <e, c_nj> / t + k, loss =
    log(exp z_0 + sum_j exp z_j) - z_0 over the usable j. A negative that is the row's positive (a hit) is not
    usable and adds nothing, an id drawn twice adds twice, a row of hits alone has loss 0 and no gradient.

    Args:
        hidden: [M, D], float16, bfloat16, float32 or float64, any strides.
        items: [V, D], the item table or a slice of it; gradients come in its dtype, summed in float32.
        targets: int [M] in [0, V), or `ignore_index` for a row without loss, whatever its state holds.
        num_negatives: N, drawn anew in backward: no id tensor exists. Exactly one of this and `negatives`.
        negatives: int [M, N] ids, or [G, N] where groups of rows share them; negative `ignore_index`: unused.
        sampler: `uniform`, `block` (runs of 64 ids; ids of V or more are unused) or a `popularity(...)`.
        sharing: who has the same negatives: `row` nobody; T, tiles of T rows; int [G + 1], boundaries of
            sequences; `batch` all rows. Docs: losses.md.
        sharing_stride: S, the distance of a tile's rows: row number r is in tile (r // (T S)) S + r % S.
        in_batch: how many of the N are targets of rows of this call, drawn uniformly.
        seed: 64-bit key of the draws.
        step: in [0, 2^32); another step draws other ids.
        rng_state: int64 [2] on the device, (seed, step), in place of both. Read at the call.
        row_offset: global number of the first row, or int64 [M] of all rows: what makes ranks and
            micro-batches draw what one process would.
        correction: k. `exact` log((V-1)/(N-r)), r unusable negatives in the row, for uniform draws;
            `constant` log((V-1)/(N+1)); `none` 0; `logq` -log(N q), q the probability of the item in a slot.
        log_q: [V], log q for `logq`; None takes that of `sampler`. inf leaves an item out.
        temperature: t.
        row_weights: [M], multiplies rows' losses.
        ignore_index: see `targets`.
        reduction: `mean` over rows with a target (0 if there are none), `sum` or `none` for [M].
        normalizer: divides the sum in place of the count (0 counts as 1): the whole step's if this is part.
        return_lse: return (loss, log-sum-exp [M]) instead, both differentiable.
        deterministic: the same bits in every run, whatever it costs.
        sparse: give `items`, a parameter of its own, a gradient of the rows that were used alone: a sparse
            tensor of G N + M rows for G groups (docs: sparse.md). For rows that share their negatives.
        chunk_bytes: bound on intermediates (at least one row's are made); None suits the device.
        kernel: `auto`, `torch`, `reference` or `triton`; never changes what is computed.

    Returns:
        float32 (float64 for float64 inputs): a number, or [M] for `none`. Operands are rounded to autocast's
        dtype where it is on, else to that of `hidden`; the softmax runs in float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or options do not fit. IndexError: an id is outside the table
            (looked for on a CPU; on CUDA with EFFREC_DEBUG=1; so are NaN and a slot's -inf in `log_q`).
        KernelUnavailable: `kernel` cannot run here. RuntimeError: a second or forward-mode derivative.
    """
    check_reduction(reduction, normalizer)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch, log_q)
    frame = Frame(row_weights, ignore_index, chunk_bytes, kernel, deterministic, sparse)
    problem = sampled_problem(hidden, items, targets, drawn, Form(correction, temperature), frame)
    return evaluate(problem, Reduction(reduction, row_weights, normalizer), return_lse)
