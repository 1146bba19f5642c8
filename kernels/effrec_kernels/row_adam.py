"""Adam for a table whose gradients are rows: what no row of a step stands for is neither read nor written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
        row_steps: [V], how often each row was in a gradient, in the table's dtype.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    row_steps: Tensor

    @classmethod
    def of(cls, table: Tensor) -> Moments:
        """Returns those of a table that has not moved yet."""
        return cls(torch.zeros_like(table), torch.zeros_like(table), table.new_zeros(len(table)))


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
    are not decayed: n counts a row's own steps, since that is how far its moments have come from 0.

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
        TypeError: the gradient is no `RowSparse`. KernelUnavailable: `kernel` cannot run here.
    """
    if not isinstance(gradient, RowSparse):
        raise TypeError(f"gradient must be a RowSparse, as coalesce makes it, not {type(gradient).__name__}")
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
    stored = (table, moments.exp_avg, moments.exp_avg_sq, moments.row_steps[:, None])
    row_bytes = table.shape[1] * table.element_size()
    step = chunks.rows_at_once(CPU_BYTES, row_bytes) if table.is_cpu else len(rows)
    for some in chunks.slices(len(rows), step):
        at, mine = rows[some], values[some]
        moved = [tensor.index_select(0, at) for tensor in stored]
        _move_(moved, mine if grad_scale is None else mine / grad_scale, rule)
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
    """Moves rows, both moments and counts [K, 1] by a step with gradients `values`."""
    table, mean, square, counts = stored
    beta1, beta2 = rule.betas
    if rule.weight_decay and rule.decoupled:
        table.mul_(1 - rule.lr * rule.weight_decay)
    elif rule.weight_decay:
        values = values.add(table, alpha=rule.weight_decay)
    counts.add_(1)
    mean.lerp_(values, 1 - beta1)
    square.mul_(beta2).addcmul_(values, values, value=1 - beta2)
    # In float64: 1 - 0.999 has few digits in float32.
    rate, spread = 1 - beta1 ** counts.double(), (1 - beta2 ** counts.double()).sqrt_()
    roots = square.sqrt().div_(spread.to(square.dtype)).add_(rule.eps)
    table.addcmul_(torch.div(mean, roots, out=roots), (-rule.lr / rate).to(mean.dtype))


class RowAdam(Optimizer):
    """Adam for tables whose gradients are row-sparse, as the losses with `sparse=True` make them.

    Semantics are those of `adam_rows_`: rows that a step's gradient does not hold stay as they are, with
    their moments, whatever the weight decay. A gradient may hold a row several times. Like PyTorch's fused
    optimizers it obeys `found_inf` and `grad_scale`, scalars on the device, set on it by a `GradScaler` or by
    hand, and no step waits for the device.

    Args:
        params: tables, float32 or float64 [V, D].
        lr: learning rate.
        betas: decay rates of the moments.
        eps: added to the root of the second.
        weight_decay: L2 strength, for rows in the gradient.
        decoupled: decay weights as AdamW does.
        kernel: `auto`, `triton` or `torch`, who computes.

    Raises:
        ValueError: a setting is out of range, a parameter is no such table, or (in `step`) a gradient is
            dense. TypeError: a parameter is of another dtype.
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
        kernel: str = "auto",
    ) -> None:
        one_of("kernel", kernel, [name for name in KERNELS if name != "reference"])
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
        }
        _check_settings(defaults)
        super().__init__(params, defaults)
        self._kernel = kernel

    def __getstate__(self) -> dict[str, Any]:
        """Returns what copies and pickles hold: PyTorch's list of it has no kernel."""
        return {**super().__getstate__(), "_kernel": self._kernel}

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
                self._move(table, rule)
        return result

    def _move(self, table: Tensor, rule: AdamRule) -> None:
        gradient = table.grad
        if gradient is None or not gradient.is_sparse:
            raise ValueError("RowAdam moves rows; this gradient is dense: use torch.optim.Adam for its table")
        given = RowSparse.of(gradient)
        adam_rows_(
            table,
            self._moments(table),
            given if gradient.is_coalesced() else coalesce(given),
            rule,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            kernel=self._kernel,
        )

    def _moments(self, table: Tensor) -> Moments:
        state = self.state[table]
        if not state:
            state.update(vars(Moments.of(table)))
        return Moments(state["exp_avg"], state["exp_avg_sq"], state["row_steps"])


def _check_settings(group: dict[str, Any]) -> None:
    """Raises ValueError or TypeError unless the settings of a group of tables are in range."""
    for name in ("lr", "eps", "weight_decay"):
        not_negative(name, group[name])
    yes_or_no("decoupled", group["decoupled"])
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1), not {betas}")
    if not all(0 <= real_number("betas", beta) < 1 for beta in betas):
        raise ValueError(f"betas must lie in [0, 1), not {betas}")


def _check_table(table: Tensor) -> None:
    """Raises ValueError or TypeError unless a parameter is a table that rows can be moved of."""
    if table.dim() != 2:
        raise ValueError(f"RowAdam moves tables [V, D], not a parameter of shape {list(table.shape)}")
    if table.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"RowAdam wants a float32 or float64 table, not {table.dtype}: its updates are too small for "
            "16 bits; keep the table in float32 and compute in 16 bits (autocast, or 16-bit hidden states)"
        )
