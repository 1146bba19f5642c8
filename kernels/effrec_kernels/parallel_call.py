"""One call of the loss over a catalogue spread over ranks: what a rank brings, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import checks
from .arguments import Form, Frame, Negatives, compute_dtype, full_problem, sampled_problem
from .dispatch import which_kernel
from .evaluate import Reduction
from .looks import check_ids
from .meeting import Brought, Slice, meet, meeting_place
from .popularity import Popularity
from .problem import Problem
from .ranks import Ranks
from .rng import MAX_ITEMS
from .slices import merged_rows
from .values import whole_number, yes_or_no


@dataclass(frozen=True)
class Own:
    """A rank's rows and items, as given: nothing of it is right before `Call.brought` has been made."""

    hidden: Tensor
    items: Tensor
    targets: Tensor
    num_items: int
    first_item: int

    @property
    def slice(self) -> Slice:
        """The items of this rank."""
        return Slice(whole_number("first_item", self.first_item, 0, MAX_ITEMS), len(self.items))

    @property
    def catalogue(self) -> Tensor:
        """The table, of which nothing is read: one number that looks like [V, D]."""
        number = whole_number("num_items", self.num_items, 1, MAX_ITEMS)
        return self.items.detach().new_empty(1, 1).expand(number, self.items.shape[1])


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
        own = self.own
        ranks = meet(group, meeting_place(group, own.items, own.hidden, own.targets), self.brought)
        whole = self._whole(ranks)
        loss, lse = merged_rows(whole, own.hidden, own.items, own.slice.first, ranks)
        loss = self.reduction.weigh(loss, ranks.own(whole.has_target))
        if self.reduction.kind != "none":
            loss = self.reduction.divide(ranks.total(loss.sum()), whole.has_target)
        return (loss, lse) if self.return_lse else loss

    def brought(self) -> Brought:
        """Returns what this rank brings.

        Raises:
            ValueError, TypeError, KernelUnavailable: this rank's arguments are wrong, whatever others have.
        """
        self._check()
        own, sharing, problem = self.own, self.drawn.sharing, self.problem
        boundaries = len(sharing) if isinstance(sharing, Tensor) else 0
        return Brought(
            num_items=problem.num_items,
            mine=own.slice,
            rows=len(own.hidden),
            boundaries=boundaries,
            replicated=self.replicated,
            device=own.hidden.device,
            options=self._compared(),
            same={name: one for name, one in self._same().items() if isinstance(one, Tensor)},
        )

    @property
    def is_full(self) -> bool:
        """Whether every item is a candidate."""
        return self.drawn.num_negatives is None and self.drawn.negatives is None

    @cached_property
    def problem(self) -> Problem:
        """The problem of own rows over the whole catalogue, its arguments checked."""
        rows = self.own.hidden, self.own.catalogue, self.own.targets
        frame = replace(self.frame, kernel="torch")
        if self.is_full:
            return full_problem(*rows, replace(self.form, correction="none"), frame)
        return sampled_problem(*rows, self.drawn, self.form, frame)

    def _check(self) -> None:
        """Raises for what `problem` does not look at."""
        own, drawn = self.own, self.drawn
        yes_or_no("replicated", self.replicated)
        yes_or_no("return_lse", self.return_lse)
        checks.check_plain("local_items", own.items)
        checks.check_tensors(own.hidden, own.items, own.targets, self.reduction.row_weights)
        checks.check_reduction(self.reduction.kind, self.reduction.normalizer)
        limit = "its kernels know no slices of a table"
        kernel = which_kernel(self.frame.kernel, own.hidden.device, limit=limit)
        if kernel == "reference":
            raise ValueError("kernel='reference' has no parallel form: it is for one process")
        checks.check_row_offset(drawn.stream.row_offset, own.hidden)
        if self.is_full:
            self._check_full()
        elif drawn.negatives is not None and not isinstance(drawn.sharing, str) and not self.replicated:
            raise ValueError(
                "negatives of tiles and sequences can be given with replicated=True alone; draw them instead"
            )

    def _check_full(self) -> None:
        """Raises ValueError for options that do nothing where every item is a candidate."""
        if (self.drawn, self.form.correction) != (Negatives(None, None, self.drawn.stream), "exact"):
            raise ValueError(
                "sampler, sharing, in_batch, log_q and correction are about negatives: give num_negatives"
            )

    def _compared(self) -> tuple[Any, ...]:
        """Returns what must be the same on all ranks and is known to the host."""
        own, drawn, frame, stream = self.own, self.drawn, self.frame, self.drawn.stream
        options = (
            drawn.num_negatives, drawn.negatives, drawn.sampler, drawn.sharing, drawn.sharing_stride,
            drawn.in_batch, drawn.log_q, stream.seed, stream.step, stream.rng_state, stream.row_offset,
            self.form.correction, self.form.temperature, frame.ignore_index, frame.deterministic,
            self.reduction.kind, self.reduction.normalizer, self.return_lse,
        )  # fmt: skip
        enabled = torch.is_grad_enabled()
        wants = enabled and own.hidden.requires_grad, enabled and own.items.requires_grad
        return own.hidden.shape[1:], compute_dtype(own.hidden), wants, [_shown(one) for one in options]

    def _same(self) -> dict[str, Any]:
        """Returns what must hold the same values on all ranks where it is a tensor."""
        drawn, stream, sampler = self.drawn, self.drawn.stream, self.drawn.sampler
        same: dict[str, Any] = {
            "rng_state": stream.rng_state,
            "log_q": drawn.log_q,
            "normalizer": self.reduction.normalizer,
        }
        if isinstance(sampler, Popularity):
            same |= {f"sampler.{field.name}": getattr(sampler, field.name) for field in fields(sampler)}
        if self.replicated or self.problem.sharing == "batch":
            same["negatives"] = drawn.negatives
        if self.replicated:
            same |= {"targets": self.own.targets, "row_weights": self.reduction.row_weights}
            same |= {"row_offset": stream.row_offset, "sharing": drawn.sharing}
        return same

    def _whole(self, ranks: Ranks) -> Problem:
        """Returns the problem of all ranks' rows over the whole catalogue, its ids checked."""
        own = self.problem
        rows, negatives, boundaries = own.rows, own.negatives, own.boundaries
        if boundaries is not None:
            # Rows between the sequences of two ranks are in neither: own targets are none there.
            boundaries = ranks.gather(boundaries + ranks.start, ranks.boundaries)
        if negatives is not None and own.sharing == "row":
            negatives = ranks.gather(negatives)
        whole = replace(
            own,
            hidden=ranks.gather(own.hidden.detach().to(own.compute_dtype)),
            targets=ranks.gather(own.targets),
            rows=None if rows is None else ranks.gather(rows),
            negatives=negatives,
            boundaries=boundaries,
        )
        check_ids(whole)
        return whole


def _shown(option: Any) -> Any:
    """Returns a number or name as it is, and of a tensor what does not depend on the number of rows."""
    if isinstance(option, Tensor):
        return str(option.dtype), tuple(option.shape[1:])
    if isinstance(option, Popularity):
        return type(option).__name__
    # NumPy's numbers are shown by their type too.
    if isinstance(option, Real):
        return int(option) if isinstance(option, Integral) else float(option)
    return option
