"""Cross-entropy over a catalogue spread over ranks: each has a slice of the item table and sends none of it.

Ids are drawn with the same keys on every rank (global row numbers, global ids), and each scores those it
holds; a few numbers for each row are merged over ranks. So the result is that of one process.

What a rank sends, M_r own of M rows, operands of c bytes, s = 4 (8 for float64); ranks with fewer rows than
others send as many:

| pass | operation | bytes |
|---|---|---|
| forward | all-gather, read on the host: sizes, slices, checksums of options and of tensors | 48 |
| | all-gather: hidden states; targets | M_r D c; 8 M_r |
| | all-gather, where given: row numbers; ids; boundaries | 8 M_r; M_r N times those of an id; 8 G_r |
| | all-reduce: maximum | s M |
| | all-reduce: positives' logits, sums of exponentials, numbers of usable negatives | 3 s M |
| | all-reduce: loss, unless `reduction="none"` | s |
| backward | all-gather: what flows into own rows | 2 s M_r |
| | reduce-scatter: gradient of hidden states | s M D |

With `replicated`: the 48 bytes, s M and 3 s M, and in backward an all-reduce of s M D. Held beside what one
process needs for M rows and V_r items: the gathered states, [M, D] in the compute dtype.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .arguments import Form, Frame, Negatives, Stream
from .evaluate import Reduction
from .parallel_call import Call, Own
from .popularity import Popularity


@torch.compiler.disable
def vocab_parallel_cross_entropy(
    hidden: Tensor,
    local_items: Tensor,
    targets: Tensor,
    *,
    num_items: int,
    first_item: int,
    group: dist.ProcessGroup | None = None,
    replicated: bool = False,
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
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Any:
    """Returns `sampled_cross_entropy`, or that over all items, of a table whose rows are spread over ranks.

    All ranks call it together. Result and gradients are those of one process with the table and all rows, in
    rank order. What is sent: the head of this module.

    Args:
        hidden: [M_r, D], this rank's rows; M_r may differ between ranks and be 0.
        local_items: [V_r, D], 1 row or more of the table. Its gradient stays on this rank.
        targets: int [M_r], numbers in the whole catalogue, or `ignore_index`.
        num_items: V, the sum of all V_r.
        first_item: number of the slice's first item. The slices, in any order, make up [0, V).
        group: the ranks, None the default group. Without `torch.distributed` a process is alone.
        replicated: all ranks bring the same M rows (states are not compared) and get the whole result.
        num_negatives: N. Without it and `negatives` every item is a candidate.
        negatives: [M_r, N] or, for `batch`, [1, N]; with `replicated` as in `sampled_cross_entropy`.
        sampler: `uniform`, `block` or a `Popularity` of all V items.
        sharing: as there, like all that is not explained here; boundaries are of own rows.
        sharing_stride: for tiles.
        in_batch: targets of the rows of all ranks.
        seed: the same on every rank, as are all numbers and tensors not of own rows; both are compared.
        step: in [0, 2^32).
        rng_state: or both in one.
        row_offset: number of rank 0's first row, others following in rank order; or int64 [M_r] of own.
        correction: `exact`, `constant`, `none` or `logq`.
        log_q: [V].
        temperature: divides the logits.
        row_weights: [M_r].
        ignore_index: marks rows without loss.
        reduction: `mean` or `sum` over the rows of all ranks; `none` gives [M_r].
        normalizer: the same on every rank.
        return_lse: give (loss, log-sum-exp [M_r]).
        deterministic: the same bits in every run, as far as collectives give them.
        chunk_bytes: bound on intermediates beside the gathered rows.
        kernel: `auto` or `torch`.

    Returns:
        float32 (float64 for float64 inputs). A number is the same on every rank; its derivative flows back
        into own rows and own slice: gradients of weights that ranks share are to be summed, not averaged.

    Raises:
        ValueError: on all ranks, where slices overlap or leave gaps, ranks differ, or one refuses its own.
        KernelUnavailable: for `triton`. Others: as `sampled_cross_entropy`.
    """
    own = Own(hidden, local_items, targets, num_items, first_item)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch, log_q)
    frame = Frame(None, ignore_index, chunk_bytes, kernel, deterministic)
    form, reduce = Form(correction, temperature), Reduction(reduction, row_weights, normalizer)
    return Call(own, drawn, form, frame, reduce, replicated, return_lse).evaluate(group)
