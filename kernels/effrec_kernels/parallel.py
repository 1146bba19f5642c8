"""Cross-entropy over a catalogue spread over ranks: each has a slice of the item table and sends none of it.

Ids are drawn with the same keys on every rank (global row numbers, global ids), and each scores those it
holds; a few numbers for each row are merged over ranks. So the result is that of one process.

What a rank sends, M_r own of M rows, operands of c bytes, s = 4 (8 for float64); ranks with fewer rows than
others send as many:

| pass | operation | bytes |
|---|---|---|
| forward | all-gather, read on the host: sizes, slices, a checksum of options | 48 |
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

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import checks
from .arguments import Form, Frame, Negatives, Stream, compute_dtype, full_problem, inside, sampled_problem
from .dispatch import which_kernel
from .evaluate import Reduction
from .popularity import Popularity
from .problem import Problem
from .ranks import Meeting, Ranks, Slice
from .slices import merged_rows


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
        replicated: all ranks bring the same M rows: nothing is gathered, each gets the whole result.
        num_negatives: N. Without it and `negatives` every item is a candidate.
        negatives: [M_r, N] or, for `batch`, [1, N]; with `replicated` as in `sampled_cross_entropy`.
        sampler: `uniform`, `block` or a `Popularity` of all V items.
        sharing: as there, like all that is not explained here; boundaries are of own rows.
        sharing_stride: for tiles.
        in_batch: targets of the rows of all ranks.
        seed: the same on every rank, as are all numbers.
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
        ValueError: on all ranks, where slices overlap or leave gaps or ranks differ in their options.
        KernelUnavailable: for `triton`. Others: as `sampled_cross_entropy`.
    """
    own = Own(hidden, local_items, targets, Slice(first_item, len(local_items)), num_items)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch, log_q)
    frame = Frame(None, ignore_index, chunk_bytes, kernel, deterministic)
    form, reduce = Form(correction, temperature), Reduction(reduction, row_weights, normalizer)
    return Call(own, drawn, form, frame, reduce, replicated, return_lse).evaluate(group)


@dataclass(frozen=True)
class Own:
    """What a rank brings: its rows and its items, both as given."""

    hidden: Tensor
    items: Tensor
    targets: Tensor
    slice: Slice
    num_items: int


@dataclass(frozen=True)
class Call:
    """One call of the loss on one rank; the attributes are its arguments."""

    own: Own
    drawn: Negatives
    form: Form
    frame: Frame
    reduction: Reduction
    replicated: bool
    return_lse: bool

    def evaluate(self, group: dist.ProcessGroup | None) -> Any:
        """Returns the loss, reduced, with all ranks of the group."""
        own, sharing = self.own, self.drawn.sharing
        boundaries = len(sharing) if isinstance(sharing, Tensor) else 0
        meeting = Meeting(
            group,
            own.num_items,
            own.slice,
            len(own.hidden),
            boundaries,
            self.replicated,
            self._compared(),
            self._check,
        )
        ranks = meeting.hold(own.hidden.device)
        whole = self._whole(ranks)
        loss, lse = merged_rows(whole, own.hidden, own.items, own.slice.first, ranks)
        loss = self.reduction.weigh(loss, ranks.own(whole.targets), whole.ignore_index)
        if self.reduction.kind != "none":
            loss = self.reduction.divide(ranks.total(loss.sum()), whole)
        return (loss, lse) if self.return_lse else loss

    @property
    def is_full(self) -> bool:
        """Whether every item is a candidate."""
        return self.drawn.num_negatives is None and self.drawn.negatives is None

    def _check(self) -> None:
        """Raises ValueError, TypeError or KernelUnavailable where this rank's arguments are wrong."""
        own, drawn = self.own, self.drawn
        checks.check_plain("local_items", own.items)
        checks.check_tensors(own.hidden, own.items, own.targets, self.reduction.row_weights)
        checks.check_reduction(self.reduction.kind, self.reduction.normalizer)
        if (
            which_kernel(self.frame.kernel, "cpu", limit="its kernels know no slices of a table")
            == "reference"
        ):
            raise ValueError("kernel='reference' has no parallel form: it is for one process")
        checks.check_sharing(drawn.sharing, drawn.sharing_stride, own.hidden, drawn.stream.row_offset)
        checks.check_row_offset(drawn.stream.row_offset, own.hidden)
        if self.is_full:
            self._check_full()
        else:
            self._check_negatives()

    def _check_full(self) -> None:
        """Raises ValueError for options that do nothing where every item is a candidate."""
        if (self.drawn, self.form.correction) != (Negatives(None, None, self.drawn.stream), "exact"):
            raise ValueError(
                "sampler, sharing, in_batch, log_q and correction are about negatives: give num_negatives"
            )

    def _check_negatives(self) -> None:
        """Raises ValueError or TypeError where there are none, or not for own rows."""
        drawn, sets = self.drawn, len(self.own.hidden) if self.drawn.sharing == "row" else None
        checks.check_negatives(drawn.negatives, drawn.num_negatives, drawn.in_batch, "M", sets)
        if drawn.negatives is not None and not isinstance(drawn.sharing, str) and not self.replicated:
            raise ValueError(
                "negatives of tiles and sequences can be given with replicated=True alone; draw them instead"
            )

    def _compared(self) -> tuple[Any, ...]:
        """Returns what must be the same on all ranks."""
        own, drawn, frame, stream = self.own, self.drawn, self.frame, self.drawn.stream
        options = (
            drawn.num_negatives, drawn.negatives, drawn.sampler, drawn.sharing, drawn.sharing_stride,
            drawn.in_batch, drawn.log_q, stream.seed, stream.step, stream.rng_state, stream.row_offset,
            frame.ignore_index, frame.deterministic, self.reduction.kind, self.reduction.normalizer,
        )  # fmt: skip
        shown = [_shown(one) for one in options]
        enabled = torch.is_grad_enabled()
        wants = enabled and own.hidden.requires_grad, enabled and own.items.requires_grad
        return own.hidden.shape[1:], compute_dtype(own.hidden), wants, shown, self.form, self.return_lse

    def _whole(self, ranks: Ranks) -> Problem:
        """Returns the problem of all ranks' rows over the whole catalogue, its ids checked.

        The table is one number that looks like [V, D]: there are arguments to check and nothing to compute.
        """
        own = self.own
        drawn, targets = self._of_all_ranks(ranks)
        hidden = ranks.gather(own.hidden.detach().to(compute_dtype(own.hidden)))
        catalogue = own.items.detach().new_empty(1, 1).expand(own.num_items, own.items.shape[1])
        rows, frame = (hidden, catalogue, ranks.gather(targets)), replace(self.frame, kernel="torch")
        if self.is_full:
            whole = full_problem(*rows, replace(self.form, correction="none"), frame)
        else:
            whole = sampled_problem(*rows, drawn, self.form, frame)
        checks.check_ids(whole)
        return whole

    def _of_all_ranks(self, ranks: Ranks) -> tuple[Negatives, Tensor]:
        """Returns the negatives of all ranks' rows, and own targets, none in rows outside own sequences."""
        drawn, targets = self.drawn, self.own.targets.long()
        ids, sharing, offset = drawn.negatives, drawn.sharing, drawn.stream.row_offset
        if isinstance(sharing, Tensor):
            # Rows between the sequences of two ranks are in neither.
            targets = inside(targets, sharing, self.frame.ignore_index)
            sharing = ranks.gather(sharing.long() + ranks.start, ranks.boundaries)
        if ids is not None and drawn.sharing == "row":
            ids = ranks.gather(ids)
        stream = replace(
            drawn.stream, row_offset=ranks.gather(offset) if isinstance(offset, Tensor) else offset
        )
        return replace(drawn, negatives=ids, sharing=sharing, stream=stream), targets


def _shown(option: Any) -> Any:
    """Returns a number or name as it is, and of a tensor what does not depend on the number of rows."""
    if isinstance(option, Tensor):
        return str(option.dtype), tuple(option.shape[1:])
    return type(option).__name__ if isinstance(option, Popularity) else option
