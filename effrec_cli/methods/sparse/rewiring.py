"""Lets the sparse tables of a network change their places as a run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from effrec_kernels.packed import PackedRows, pack, unpack
from torch import Tensor, nn

from effrec_cli.distributed import World
from effrec_cli.methods.sparse.plan import Plan
from effrec_cli.models.sparse.growth import GradientScores, RandomScores
from effrec_cli.models.sparse.places import Part, Scores
from effrec_cli.models.sparse.rewire import Moved, Rule, rewire_together
from effrec_cli.models.sparse.tables import IdTable, MaskedTable, PackedTable
from effrec_cli.seeds import mix

_SUMS = "growth."


class Rewiring:
    """Watches gradients where the plan says so, and changes places where it is time.

    Args:
        tables: that may change, by name.
        optimizers: that move them.
        plan: of the run.
        regrow: whether what is dropped may come back in the same update.
        redistribute: whether the tables, which are then of structure `global`, share one budget.
        seed: of the run.
        world: processes whose gradients count together.

    Attributes:
        sums_bytes: the most that the sums of all tables together have taken.
        told: for each update the step, the share r_t, what was dropped and grown, and how many numbers are
            live.
    """

    def __init__(
        self,
        tables: dict[str, IdTable],
        optimizers: Sequence[torch.optim.Optimizer],
        plan: Plan,
        *,
        regrow: bool,
        redistribute: bool,
        seed: int,
        world: World,
    ) -> None:
        self.tables, self.plan, self.world = tables, plan, world
        self._optimizers, self._seed = optimizers, seed
        self._regrow, self._redistribute = regrow, redistribute
        self.told: list[dict[str, Any]] = []
        self.sums_bytes = 0

    def watch(self, step: int) -> None:
        """Gets ready for the step that follows `step` others."""
        for table in self.tables.values():
            if not self.plan.watches(step):
                table.scores = None
            elif table.scores is None:
                table.scores = self._sums(table, self.plan.turn(step))
        self.sums_bytes = max(self.sums_bytes, sum(each.sums.nbytes for each in self._watched()))

    def settle(self, targets: int, scale: Tensor | None) -> None:
        """Sums what the micro-batches of a step of so many targets have left, multiplied by `scale`."""
        for scores in self._watched():
            scores.settle(targets, scale)

    def forget_step(self) -> None:
        """Drops what a step that is given up has left."""
        for scores in self._watched():
            scores.forget_step()

    def after(self, step: int) -> None:
        """Changes places, where it is time after so many steps."""
        if not self.plan.due(step):
            return
        moved, share = Moved(), self.plan.share(step)
        scores = [self._scores(table, number, step) for number, table in enumerate(self.tables.values())]
        pairs = list(zip(self.tables.values(), scores, strict=True))
        for some in [pairs] if self._redistribute else [[pair] for pair in pairs]:
            moved += self._change(some, share)
        for table in self.tables.values():
            table.scores = None
        live = {name: live_in(table) for name, table in self.tables.items()}
        told = {"step": step, "share": share, **vars(moved), "live": sum(live.values())}
        self.told.append({**told, "live_by_table": live} if self._redistribute else told)

    def _change(self, tables: list[tuple[IdTable, Scores]], share: float) -> Moved:
        """Changes places in tables of one budget."""
        policy = self.plan.policy
        fixed = all(table.shape.structure == "row" for table, _ in tables)
        rule = Rule(share, within_rows=fixed, signed=policy.signed, regrow=self._regrow)
        parts = [_part_of(table, self._states(table.weights), scores) for table, scores in tables]
        made, moved = rewire_together(parts, rule)
        for (table, _), part in zip(tables, made, strict=True):
            self._put(table, part)
        return moved

    def _put(self, table: IdTable, part: Part) -> None:
        """Makes a part that has changed the table."""
        states = self._states(table.weights)
        if isinstance(table, MaskedTable):
            _put_masked(table, states, part)
            return
        assert isinstance(table, PackedTable)
        if part.packed.columns is table.columns:
            return
        for (state, name), new in zip(self._kept(table.weights), part.states, strict=True):
            state[name] = new
        table.values.data, table.columns = part.packed.values, part.packed.columns
        table.offsets = part.packed.offsets

    def _scores(self, table: IdTable, number: int, step: int) -> Scores:
        """Returns what asks to grow in a table, alike on every rank."""
        low, high = self.plan.rows_of_turn(table.shape.rows, self.plan.turn(step - 1))
        device = table.weights.device
        if self.plan.policy.random:
            seed = mix(self._seed, step, number)
            return RandomScores(table.shape.rows, table.shape.dim, low, high, seed, device)
        assert table.scores is not None
        if self.world.size > 1:
            self._over_ranks([table.scores.sums])
        return table.scores

    def _over_ranks(self, sums: list[Tensor]) -> None:
        """Adds up 16-bit sums of all ranks, in place; the same bits on each."""
        wide = [each.float() for each in sums]
        self.world.sum_(wide)
        for each, whole in zip(sums, wide, strict=True):
            most = torch.finfo(each.dtype).max
            each.copy_(whole.clamp_(-most, most))

    def _states(self, weights: nn.Parameter) -> list[Tensor]:
        """Returns the optimizer's state of a table, those of its tensors that have its shape."""
        return [state[name] for state, name in self._kept(weights)]

    def _kept(self, weights: nn.Parameter) -> list[tuple[dict[str, Any], str]]:
        """Returns where they are kept, and under which names."""
        states = [one.state[weights] for one in self._optimizers if weights in one.state]
        return [(state, name) for state in states for name, each in state.items() if _is_like(each, weights)]

    def _sums(self, table: IdTable, turn: int) -> GradientScores:
        low, high = self.plan.rows_of_turn(table.shape.rows, turn)
        return GradientScores(table.shape.rows, table.shape.dim, low, high, table.weights.device)

    def _watched(self) -> Iterator[GradientScores]:
        return (table.scores for table in self.tables.values() if table.scores is not None)

    # What a resumed run needs.

    def tensors(self) -> dict[str, Tensor]:
        """Returns the sums of a window that has begun, those of all ranks on each."""
        found = {f"{_SUMS}{name}": table.scores.sums for name, table in self.tables.items() if table.scores}
        if self.world.size > 1 and found:
            found = {name: sums.clone() for name, sums in found.items()}
            self._over_ranks(list(found.values()))
        return found

    def load_tensors(self, kept: dict[str, Tensor], step: int) -> None:
        """Takes `tensors` back, after so many steps; one rank of several goes on from all of them."""
        for name, table in self.tables.items():
            sums = kept.get(f"{_SUMS}{name}")
            if sums is None:
                continue
            table.scores = self._sums(table, self.plan.turn(step))
            if self.world.is_main:
                table.scores.sums.copy_(sums)


def live_in(table: IdTable) -> int:
    """Returns how many numbers of a table are live, as they are stored."""
    if isinstance(table, PackedTable):
        return table.columns.numel()
    return int(table.mask.sum()) if isinstance(table, MaskedTable) else table.weights.numel()


def _is_like(state: Any, weights: Tensor) -> bool:
    return isinstance(state, Tensor) and state.shape == weights.shape


def _part_of(table: IdTable, states: list[Tensor], scores: Scores) -> Part:
    """Returns what an update of a table goes by; of a masked one, packed copies."""
    if isinstance(table, PackedTable):
        return Part(table.packed, states, scores)
    assert isinstance(table, MaskedTable)
    ragged = table.shape.structure != "row"
    packed = pack(table.table.detach(), table.mask, ragged=ragged)
    small = [pack(state.double(), table.mask, ragged=ragged).values for state in states]
    return Part(packed, small, scores)


def _put_masked(table: MaskedTable, states: list[Tensor], part: Part) -> None:
    """Spreads a packed part over a dense table, its mask and its states."""
    packed = part.packed

    def spread(values: Tensor) -> Tensor:
        return unpack(PackedRows(values, packed.columns, packed.dim, packed.offsets))

    table.table.data.copy_(spread(packed.values))
    table.mask.copy_(spread(torch.ones_like(packed.values)).bool())
    for state, values in zip(states, part.states, strict=True):
        state.copy_(spread(values))
