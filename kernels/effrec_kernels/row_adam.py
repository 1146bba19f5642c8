"""Adam for a table whose gradients are rows: what no row of a step stands for is neither read nor written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import chunks
from .dispatch import KERNELS, which_kernel
from .row_sparse import RowSparse, coalesce
from .values import not_negative, one_of, real_number, yes_or_no

# Of each of the rows' copies alive at a time on a CPU: what its caches hold.
CPU_BYTES = 256 << 10
# Where the steps of a number stop being counted: what 16 bits hold.
MOST_STEPS = (1 << 15) - 1
# What 1 - x rounds to 1 for in float32.
NO_DIGIT = 2.0**-25


@dataclass(frozen=True)
class AdamRule:
    """How Adam moves.

    Attributes:
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the second.
        weight_decay: L2 strength, for the rows of the step alone.
        decoupled: shrink rows by lr * weight_decay (AdamW) in place of adding to the gradient.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool


@dataclass(frozen=True)
class Moments:
    """What Adam remembers of a table [V, D].

    Attributes:
        exp_avg: [V, D], mean of gradients.
        exp_avg_sq: [V, D], mean of their squares.
        row_steps: [V], how often each row was in a gradient, in the table's dtype; or int16 [V, D], how often
            each number was since its own moments were 0. That stops at 32,767, where 1 - beta^n is 1 in
            float32 for all betas that are taken (6e-15 away from it for 0.999).
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    row_steps: Tensor

    @classmethod
    def of(cls, table: Tensor, *, slot_steps: bool = False) -> Moments:
        """Returns those of a table that has not moved yet; with `slot_steps` each number counts its steps."""
        by_slot = torch.zeros_like(table, dtype=torch.int16) if slot_steps else None
        steps = table.new_zeros(len(table)) if by_slot is None else by_slot
        return cls(torch.zeros_like(table), torch.zeros_like(table), steps)

    @property
    def slot_steps(self) -> bool:
        """Returns whether each number counts its own steps."""
        return self.row_steps.dtype == torch.int16


def adam_rows_(
    table: Tensor,
    moments: Moments,
    gradient: RowSparse,
    rule: AdamRule,
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    kernel: str = "auto",
) -> None:
    """Moves the rows of a gradient by Adam (arXiv 1412.6980), in place, and leaves all others alone.

    For a row in the gradient, g its values and n the gradients it has been in, this one counted: m = b1 m +
    (1-b1) g; v = b2 v + (1-b2) g^2; row -= lr m / (1 - b1^n) / (sqrt(v / (1 - b2^n)) + eps). A row that
    is in every gradient moves as under dense Adam. Moments of the others do not decay, they do not move and
    are not decayed: n counts a row's own steps, since that is how far its moments have come from 0. Where
    `moments` count by number, n is that of each: one whose moments were set to 0, such as a slot that grew in
    a row that has moved for long, then begins with a step of lr and not of (1-b1) / sqrt(1-b2) lr.

    Args:
        table: float32 or float64 [V, D], no derivative is recorded.
        moments: of the table.
        gradient: each row once (`coalesce`); unused slots may hold V.
        rule: how to move.
        grad_scale: scalar on the device, divides gradients.
        found_inf: scalar on the device; nothing at all changes where it is not 0.
        kernel: `auto`, `triton` or `torch`. No kernel waits for the device. Triton's has no workspace,
            PyTorch's holds copies of a few rows on a CPU and of all rows elsewhere.

    Raises:
        TypeError: the gradient is no `RowSparse`. KernelUnavailable: `kernel` cannot run here. ValueError:
            steps are counted by number, and a beta is above 0.99947.
    """
    if not isinstance(gradient, RowSparse):
        raise TypeError(f"gradient must be a RowSparse, as coalesce makes it, not {type(gradient).__name__}")
    if moments.slot_steps:
        _check_ages(rule.betas)
    if len(gradient.rows) == 0:
        return
    with torch.no_grad():
        if which_kernel(kernel, table) == "triton":
            from .triton_kernels.adam import adam_rows

            adam_rows(table, moments, gradient, rule, grad_scale, found_inf)
        elif found_inf is None or not (found_inf.is_cpu and found_inf.item()):
            _torch(table, moments, gradient, rule, grad_scale, found_inf)


def _torch(
    table: Tensor,
    moments: Moments,
    gradient: RowSparse,
    rule: AdamRule,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Reads rows of table and moments, moves them and writes them back; a few at a time on a CPU."""
    rows, values, barred = _readable(gradient, found_inf)
    steps = moments.row_steps if moments.slot_steps else moments.row_steps[:, None]
    stored: tuple[Tensor, ...] = (table, moments.exp_avg, moments.exp_avg_sq, steps)
    if table.shape[1] == 1:
        # As vectors: on a CPU gathering rows of one number each is many times as slow.
        stored, values = tuple(tensor[:, 0] for tensor in stored), values[:, 0]
    row_bytes = table.shape[1] * table.element_size()
    step = chunks.rows_at_once(CPU_BYTES, row_bytes) if table.is_cpu else len(rows)
    every = barred is None and len(rows) == gradient.num_rows and _rise(rows)  # nothing to gather
    for some in chunks.slices(len(rows), step):
        at, mine = rows[some], values[some]
        mine = mine if grad_scale is None else mine / grad_scale
        if every:
            _move_([tensor[some] for tensor in stored], mine, rule)
            continue
        moved = [tensor.index_select(0, at) for tensor in stored]
        _move_(moved, mine, rule)
        for tensor, new in zip(stored, moved, strict=True):
            kept = new if barred is None else torch.where(barred, tensor.index_select(0, at), new)
            tensor.index_copy_(0, at, kept)


def _readable(gradient: RowSparse, found_inf: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns rows and values safe to read and write, and whether nothing may change (None: it may).

    An unused slot becomes another of the first: both then write the same. Where all are unused, or
    `found_inf` says so, rows are to be written as they are.
    """
    rows, values = gradient.rows, gradient.values
    if rows.is_cpu and int(rows[-1]) < gradient.num_rows:
        return rows, values, None
    unused = rows >= gradient.num_rows
    barred = unused[0] if found_inf is None else unused[0] | (found_inf != 0)
    rows = torch.where(unused, rows[:1].clamp(max=gradient.num_rows - 1), rows)
    return rows, torch.where(unused[:, None], values[:1], values), barred


def _move_(stored: list[Tensor], values: Tensor, rule: AdamRule) -> None:
    """Moves rows, both moments and counts ([K, 1], or int16 [K, D]) by a step with gradients `values`."""
    table, mean, square, counts = stored
    beta1, beta2 = rule.betas
    if rule.weight_decay and rule.decoupled:
        table.mul_(1 - rule.lr * rule.weight_decay)
    elif rule.weight_decay:
        values = values.add(table, alpha=rule.weight_decay)
    counts.add_(counts < MOST_STEPS if counts.dtype == torch.int16 else 1)
    mean.lerp_(values, 1 - beta1)
    square.mul_(beta2).addcmul_(values, values, value=1 - beta2)
    rate, spread = _gap(beta1, counts), _gap(beta2, counts).sqrt_()
    roots = square.sqrt().div_(spread.to(square.dtype)).add_(rule.eps)
    table.addcmul_(torch.div(mean, roots, out=roots), (-rule.lr / rate).to(mean.dtype))


def _gap(beta: float, counts: Tensor) -> Tensor:
    """Returns 1 - beta^n in float64: 1 - 0.999 has few digits in float32."""
    if counts.dtype != torch.int16 or not counts.is_cpu:
        return 1 - beta ** counts.double()
    return _gaps(beta).index_select(0, counts.flatten().long()).view_as(counts)


@lru_cache(maxsize=8)
def _gaps(beta: float) -> Tensor:
    """Returns 1 - beta^n in float64 for all n that 16 bits count: on a CPU a power a number costs more."""
    return 1 - beta ** torch.arange(MOST_STEPS + 1, dtype=torch.float64)


class RowAdam(Optimizer):
    """Adam for tables whose gradients are row-sparse, as the losses with `sparse=True` make them.

    Semantics are those of `adam_rows_`: rows that a step's gradient does not hold stay as they are, with
    their moments, whatever the weight decay. A gradient may hold a row several times; a dense one holds all,
    which is for tables that are read whole at times, or whose numbers begin anew: where neither is so,
    `torch.optim.Adam` does the same in less time. Like PyTorch's fused optimizers it obeys `found_inf` and
    `grad_scale`, scalars on the device, set on it by a `GradScaler` or by hand, and no step waits for the
    device.

    Args:
        params: tables, float32 or float64 [V, D].
        lr: learning rate.
        betas: decay rates of the moments.
        eps: added to the root of the second.
        weight_decay: L2 strength, for rows in the gradient.
        decoupled: decay weights as AdamW does.
        slot_steps: count the steps of each number and not of rows: for tables of which numbers begin anew,
            with `exp_avg`, `exp_avg_sq` and `row_steps` of `state` set to 0 there. Where all numbers of each
            row began together the bits are the same. Counts are int16 [V, D]: 2 bytes a number.
        kernel: `auto`, `triton` or `torch`, who computes.

    Raises:
        ValueError: a setting is out of range (with `slot_steps` also a beta above 0.99947), or a parameter is
            no such table. TypeError: a parameter is of another dtype.
    """

    _step_supports_amp_scaling = True
    takes_unused_rows = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
        slot_steps: bool = False,
        kernel: str = "auto",
    ) -> None:
        one_of("kernel", kernel, [name for name in KERNELS if name != "reference"])
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
            "slot_steps": slot_steps,
        }
        _check_settings(defaults)
        super().__init__(params, defaults)
        self._kernel = kernel

    def __getstate__(self) -> dict[str, Any]:
        """Returns what copies and pickles hold: PyTorch's list of it has no kernel."""
        return {**super().__getstate__(), "_kernel": self._kernel}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what `__getstate__` or a saved state holds; PyTorch makes floats of saved counts."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("slot_steps", False)
            for table in group["params"] if group["slot_steps"] else ():
                if self.state.get(table):
                    self.state[table]["row_steps"] = self.state[table]["row_steps"].to(torch.int16)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds tables with settings of their own; raises as the constructor does, and then adds nothing."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_settings(group)
            for table in group["params"]:
                _check_table(table)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the rows that the tables' gradients hold; returns what `closure` does."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            betas = group["betas"][0], group["betas"][1]
            rule = AdamRule(group["lr"], betas, group["eps"], group["weight_decay"], group["decoupled"])
            for table in (one for one in group["params"] if one.grad is not None):
                self._move(table, rule, group["slot_steps"])
        return result

    def _move(self, table: Tensor, rule: AdamRule, slot_steps: bool) -> None:
        assert table.grad is not None
        adam_rows_(
            table,
            self._moments(table, slot_steps),
            _each_row_once(table.grad),
            rule,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            kernel=self._kernel,
        )

    def _moments(self, table: Tensor, slot_steps: bool) -> Moments:
        state = self.state[table]
        if not state:
            state.update(vars(Moments.of(table, slot_steps=slot_steps)))
        return Moments(state["exp_avg"], state["exp_avg_sq"], state["row_steps"])


def _each_row_once(gradient: Tensor) -> RowSparse:
    """Returns the rows of a gradient [V, D]; of a dense one all."""
    if not gradient.is_sparse:
        return RowSparse(torch.arange(len(gradient), device=gradient.device), gradient, len(gradient))
    given = RowSparse.of(gradient)
    return given if gradient.is_coalesced() or _rise(given.rows) else coalesce(given)


def _rise(rows: Tensor) -> bool:
    """Returns whether each row stands once, rising; a GPU, which would have to be waited for, is not asked.

    Autograd does not tell: it takes the mark off a gradient that it adds to a table's.
    """
    return rows.is_cpu and bool((rows[1:] > rows[:-1]).all())


def _check_settings(group: dict[str, Any]) -> None:
    """Raises ValueError or TypeError unless the settings of a group of tables are in range."""
    for name in ("lr", "eps", "weight_decay"):
        not_negative(name, group[name])
    for name in ("decoupled", "slot_steps"):
        yes_or_no(name, group[name])
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1), not {betas}")
    if not all(0 <= real_number("betas", beta) < 1 for beta in betas):
        raise ValueError(f"betas must lie in [0, 1), not {betas}")
    if group["slot_steps"]:
        _check_ages(betas)


def _check_ages(betas: Sequence[float]) -> None:
    """Raises ValueError unless 1 - beta^n is 1 in float32 from where steps are no longer counted."""
    if max(betas) ** MOST_STEPS > NO_DIGIT:
        most = f"{NO_DIGIT ** (1 / MOST_STEPS):.5f}"
        raise ValueError(
            f"steps of each number are counted to {MOST_STEPS:,}, where 1 - beta^n must be 1 in float32: "
            f"betas are at most {most}, not {max(betas)}; count steps of rows (slot_steps=False)"
        )


def _check_table(table: Tensor) -> None:
    """Raises ValueError or TypeError unless a parameter is a table that rows can be moved of."""
    if table.dim() != 2:
        raise ValueError(f"RowAdam moves tables [V, D], not a parameter of shape {list(table.shape)}")
    if table.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"RowAdam wants a float32 or float64 table, not {table.dtype}: its updates are too small for "
            "16 bits; keep the table in float32 and compute in 16 bits (autocast, or 16-bit hidden states)"
        )
