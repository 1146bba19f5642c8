"""The primitives that a method composes into a training step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from effrec_kernels import RowSparse, coalesce
from torch import Tensor

from effrec_cli.distributed import World
from effrec_cli.evaluation.held import gradient_bytes, optimizer_bytes
from effrec_cli.loop.finite import FiniteGuard
from effrec_cli.precision import LossScaler, autocast, resolve_precision

_LOOK_EVERY = 20
"""Steps between two looks at how much is held."""


class Primitives:
    """Backward, reduce, clip, check, step and zero, over all of a method's optimizers together.

    None of them waits for the GPU.

    Args:
        optimizers: what moves the weights.
        world: the processes that share a step.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        clip_norm: largest norm of all gradients together, or None.

    Attributes:
        steps: optimizer steps done.
        last_micro_batch: whether the micro-batch in `training_step` is its step's last.
        precision: `fp32`, `bf16` or `fp16`.
        guard: knows whether all losses and gradients were finite.
        scaler: the loss scaler of fp16, else None.
        gradient_bytes: the most that gradients have taken, in the steps that were looked at.
        optimizer_bytes: of what optimizers remember, likewise.
    """

    def __init__(
        self, optimizers: list[torch.optim.Optimizer], world: World, precision: str, clip_norm: float | None
    ) -> None:
        self.optimizers, self.world = optimizers, world
        self.steps = 0
        self.last_micro_batch = True
        self.gradient_bytes = self.optimizer_bytes = 0
        self.precision = resolve_precision(precision, world.device)
        self.scaler = LossScaler(world.device) if self.precision == "fp16" else None
        self.guard = FiniteGuard(world.device, self.scaler)
        self._clip_norm = clip_norm
        self._groups = [(group, group["lr"]) for one in optimizers for group in one.param_groups]
        self._parameters = list(dict.fromkeys(p for group, _ in self._groups for p in group["params"]))
        by_rows = (one for one in optimizers if getattr(one, "takes_unused_rows", False))
        self._moved_by_rows = {p for one in by_rows for group in one.param_groups for p in group["params"]}

    def set_rates(self, share: float) -> None:
        """Sets every group's learning rate to its own initial one times `share`."""
        for group, initial in self._groups:
            group["lr"] = initial * share

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context that a forward pass runs in."""
        return autocast(self.precision, self.world.device)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss, a float scalar, to the parameters'."""
        self.guard.saw(loss)
        (loss if self.scaler is None else loss * self.scaler.scale).backward()

    def update(self) -> None:
        """Moves the weights by the gradients gathered so far: reduce, clip, check, step, zero."""
        self.reduce()
        self.check(self.clip())
        self.step()
        self.zero()

    def reduce(self) -> None:
        """Makes the gradients those of the whole step: summed over ranks, and rid of fp16's scale.

        Losses are divided by the whole step's targets, so the sum is right for shares of any size. A
        parameter without a gradient on some ranks counts as zero there; without one on all it stays without.
        """
        if self.world.size > 1:
            self._fill_missing()
            self._gather_rows()
            dense = [p.grad for p in self._parameters if p.grad is not None and not p.grad.is_sparse]
            self.world.sum_([*dense, self.guard.loss])
        if self.scaler is not None:
            self.scaler.unscale(self._gradients())

    def clip(self) -> Tensor:
        """Scales all optimizers' gradients down together where their norm exceeds `run.clip_norm`.

        Returns:
            the norm before, a scalar on the device.
        """
        gradients, limit = self._gradients(), self._clip_norm
        if not gradients:
            return torch.zeros((), device=self.world.device)
        norm = torch.nn.utils.get_total_norm(gradients)
        if limit is not None:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def check(self, norm: Tensor) -> None:
        """Bars the update where a loss of this step or its gradient `norm` is not finite."""
        self.guard.check(norm, self.steps)

    def step(self) -> None:
        """Lets the optimizers move the weights, unless `check` has barred it.

        Fused optimizers skip on the device. Another kind is asked to step only after waiting for the flag,
        which costs nothing on a CPU.
        """
        for optimizer in self.optimizers:
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                vars(optimizer).update(found_inf=self.guard.found_inf, grad_scale=None)
                optimizer.step()
            elif not self.guard.found_inf.item():
                optimizer.step()
        if self.steps % _LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Measures what is held between `step` and `zero`."""
        self.gradient_bytes = max(self.gradient_bytes, gradient_bytes(self._parameters))
        self.optimizer_bytes = max(self.optimizer_bytes, optimizer_bytes(self.optimizers))

    def zero(self) -> None:
        """Forgets the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        """Returns the gradients' values; a sparse gradient's are those of its rows, each row once."""
        return [self._values(parameter) for parameter in self._parameters if parameter.grad is not None]

    def _values(self, parameter: Tensor) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        if not gradient.is_sparse:
            return gradient
        if not gradient.is_coalesced():  # rows met twice are added up, so that the norm is right
            self._keep_rows(parameter, RowSparse.of(gradient))
        assert parameter.grad is not None
        return parameter.grad._values()

    def _keep_rows(self, parameter: Tensor, rows: RowSparse) -> None:
        """Makes rows the parameter's gradient, each once.

        Only an optimizer that knows unused slots may be given some; for others a GPU is waited for.
        """
        compact = None if parameter in self._moved_by_rows else True
        parameter.grad = coalesce(rows, compact=compact).gradient(coalesced=True)

    def _gather_rows(self) -> None:
        """Gives each row-sparse gradient the rows of all ranks.

        How many slots a rank has the hosts tell each other; those missing to the most are unused.
        """
        sparse = [p for p in self._parameters if p.grad is not None and p.grad.is_sparse]
        mine = [coalesce(p.grad) for p in sparse]
        most = self.world.most([len(one.rows) for one in mine])
        for parameter, own, slots in zip(sparse, mine, most, strict=True):
            missing = slots - len(own.rows)
            rows = self.world.gather(F.pad(own.rows, (0, missing), value=own.num_rows))
            values = self.world.gather(F.pad(own.values, (0, 0, 0, missing)))
            self._keep_rows(parameter, RowSparse(rows, values, own.num_rows))

    def _fill_missing(self) -> None:
        """Gives each parameter that has a gradient on any rank one on this rank, too."""
        there = [p.grad is not None for p in self._parameters]
        sparse = [p.grad is not None and p.grad.is_sparse for p in self._parameters]
        votes = self.world.agree(there + sparse)
        needed, by_rows = votes[: len(there)], votes[len(there) :]
        for parameter, wanted, as_rows in zip(self._parameters, needed, by_rows, strict=True):
            if wanted and parameter.grad is None:
                parameter.grad = _no_rows(parameter) if as_rows else torch.zeros_like(parameter)


def _no_rows(parameter: Tensor) -> Tensor:
    """Returns a row-sparse gradient of zero."""
    rows = torch.empty(0, dtype=torch.int64, device=parameter.device)
    return RowSparse(rows, parameter.new_empty(0, parameter.shape[1]), len(parameter)).gradient()
