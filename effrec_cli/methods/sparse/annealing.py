"""Rows that begin with many numbers and lose the smallest as a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effrec_cli.methods.sparse.rewiring import live_in
from effrec_cli.models.sparse.tables import IdTable, PackedTable
from effrec_cli.schema.method_dsl import DSLConfig, first_live_of, live_of


@dataclass(frozen=True)
class Narrowing:
    """How many numbers a row has, a pure function of the step.

    Attributes:
        first: k at first.
        last: k that rows end with.
        interval: steps between two looks.
        total: steps after which rows have `last`.
    """

    first: int
    last: int
    interval: int
    total: int

    def width(self, step: int) -> int:
        """Returns k after so many steps: it falls by like factors (papers/dsl section 3.5)."""
        looked = min(step, self.total) if step >= self.total else step - step % self.interval
        return round(self.first * (self.last / self.first) ** (looked / self.total))


def narrowing_of(own: DSLConfig, steps_per_epoch: int, total_steps: int) -> Narrowing:
    """Returns the plan of a run.

    Args:
        own: the method's settings, of mode `topk_anneal`.
        steps_per_epoch: of the run.
        total_steps: of the run, if nothing stops it early.
    """
    total = total_steps if own.anneal_epochs is None else own.anneal_epochs * steps_per_epoch
    until = max(1, round((0.75 if own.stop is None else own.stop) * total))
    every = 1.0 if own.update_every is None else own.update_every
    return Narrowing(first_live_of(own), live_of(own), max(1, round(every * steps_per_epoch)), until)


class Annealing:
    """Lets the smallest numbers of each row go; has what a run asks of `Rewiring`.

    Args:
        tables: that narrow, by name.
        optimizers: that move them.
        plan: of the run.

    Attributes:
        told: for each update the step, what was dropped, and how many numbers are live.
    """

    def __init__(
        self, tables: dict[str, PackedTable], optimizers: Sequence[torch.optim.Optimizer], plan: Narrowing
    ) -> None:
        self.tables, self.plan = tables, plan
        self._optimizers = optimizers
        self.told: list[dict[str, Any]] = []

    def watch(self, step: int) -> None:
        """Does nothing: no gradient ranks what goes."""

    def settle(self, targets: int, scale: Tensor | None) -> None:
        """Does nothing."""

    def forget_step(self) -> None:
        """Does nothing: a step that is given up has left nothing."""

    def after(self, step: int) -> None:
        """Narrows rows, where it is time after so many steps."""
        width = self.plan.width(step)
        before = sum(map(live_in, self.tables.values()))
        for table in self.tables.values():
            if width < table.values.shape[1]:
                self._narrow(table, width)
        live = sum(map(live_in, self.tables.values()))
        if live < before:
            self.told.append({"step": step, "dropped": before - live, "grown": 0, "live": live})

    def _narrow(self, table: PackedTable, width: int) -> None:
        kept = table.narrow(width)
        for state in (one.state[table.values] for one in self._optimizers if table.values in one.state):
            for name, each in state.items():
                if isinstance(each, Tensor) and each.dim() == 2:  # moments, not the rows' steps
                    state[name] = each.gather(1, kept)

    def tensors(self) -> dict[str, Tensor]:
        """Returns nothing: what a resumed run needs is in its tables."""
        return {}

    def load_tensors(self, kept: dict[str, Tensor], step: int) -> None:
        """Does nothing."""


def narrowing_tables(tables: dict[str, IdTable]) -> dict[str, PackedTable]:
    """Returns those of a network's tables that narrow."""
    return {name: table for name, table in tables.items() if isinstance(table, PackedTable)}
