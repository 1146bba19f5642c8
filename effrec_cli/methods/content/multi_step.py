"""Multi-step GRAM: a filter on cached vectors, an encoder trained once a cycle (papers/gram section 1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from effrec_cli.data.batches import Batch
from effrec_cli.errors import ConfigError
from effrec_cli.methods.content.chunks import Chunk, Int64, Limits, packed
from effrec_cli.methods.content.cycle import Cycle
from effrec_cli.methods.content.items import PART
from effrec_cli.methods.content.modes import Mode, Parts, rows_of
from effrec_cli.methods.content.probe import Probe
from effrec_cli.methods.content.selection import chosen
from effrec_cli.seeds import mix

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


class MultiStep(Mode):
    """Trains the filter on vectors that stand still for a cycle, then the encoder on the gradients they got.

    In a cycle the encoder's weights are constant. An item is encoded when it is first needed (`lazy`) or with
    all others as the cycle begins (`eager`; the same vectors, never fewer encodings). Each step of the filter
    adds its gradient of every vector to G. A cycle ends after `period` steps, with the epoch, with the
    training, and before a validation; then `update` says how the encoder learns:

    - `inject_single`: one update by sum_i J_i^T G_i: what gradient accumulation over the cycle would give;
    - `inject_multi`: one update a chunk of items, each item's G used once;
    - `regress`, the paper's: vectors have moved by `drift` times their gradients, and the encoder is fitted
      to where they ended, 1/2 sum of squares, one update a chunk, `passes` times over.

    Attributes:
        period: filter steps in a cycle, once it is known how many an epoch has; the probe may change it.
        replays: whether the encoder draws (dropout), so that the backward pass has to take the chunks as they
            were encoded; without it items are packed anew. None as long as nobody has looked.
    """

    together: ClassVar[bool] = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.period: int = 0
        self.replays: bool | None = None
        self.drift = parts.settings.drift_rate
        self._cycle: Cycle | None = None
        self._loaded: tuple[dict[str, Tensor], dict[str, Any]] = ({}, {})
        self._of_step: list[tuple[Int64, Tensor, Tensor]] = []
        self._chunks_before = 0
        self.probe = Probe(self)

    @property
    def cycle(self) -> Cycle:
        """The cycle that runs, made or taken from a checkpoint when first asked for."""
        if self._cycle is None:
            encoding = self.parts.encoding
            self._cycle = Cycle.new(self.parts.task.num_items, encoding.nothing())
            tensors, state = self._loaded
            if tensors:
                self._cycle.load(tensors, state)
                self.probe.load(tensors, state)
                self._loaded = ({}, {})
        return self._cycle

    @property
    def _runs(self) -> bool:
        """Whether there is a cycle: here, or in a checkpoint that no step has gone on from."""
        return self._cycle is not None or bool(self._loaded[0])

    def begin(self, engine: Engine) -> None:
        """Settles how many steps a cycle has.

        Raises:
            ConfigError: the encoder is to regress in 16 bits, whose rounding is larger than any gradient.
        """
        settings = self.parts.settings
        if settings.update == "regress" and engine.precision != "fp32":
            raise ConfigError(
                "update=regress subtracts vectors that differ by a gradient: in 16 bits noise alone is left.",
                where=f"run.precision={engine.precision}",
                fix="run.precision=fp32, or method.update=inject_multi",
            )
        steps = 1.0 if settings.period_unit == "steps" else float(engine.steps_per_epoch)
        self.period = self.period or max(1, round(settings.period * steps))

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch of the filter on the cache; the last of a cycle also moves the encoder."""
        rows = rows_of(batch)
        if batch.host[PART][0] == 0:
            self._of_step = []  # of a step that was only tried
            self._chunks_before = len(self.cycle.chunks)
        self._refresh(rows, engine)
        loss, gradient, index = self.gradient_of(batch, rows, engine)
        self._of_step.append((rows, index, gradient))
        if engine.last_micro_batch:
            self._move_filter(engine)
            self._gather(batch, engine)
            if self._ends(batch, engine):
                self._end(engine)
        return self.report(loss)

    def gradient_of(self, batch: Batch, rows: Int64, engine: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the filter forward and back on the cached vectors.

        Returns:
            the loss; the gradient of the vectors [U, d], summed over ranks and rid of fp16's scale; and
            `rows` on the device.
        """
        index = self.parts.encoding.index(rows)
        vectors = self.cycle.table.index_select(0, index).requires_grad_()
        loss = self.loss(vectors, batch, engine.autocast)
        engine.backward(loss)
        gradient = torch.zeros_like(vectors) if vectors.grad is None else vectors.grad
        scaler = getattr(engine, "scaler", None)
        if scaler is not None:
            gradient = gradient * scaler.scale.reciprocal()
        return loss, self.parts.encoding.summed(gradient), index

    def _move_filter(self, engine: Engine) -> None:
        """Moves the filter; a step whose vectors' gradients are not finite is skipped as a whole.

        Gathered, they would bar the encoder's update, and with it all that the cycle has to give.
        """
        engine.reduce()
        nothing = torch.stack([(gradient * 0.0).sum() for _, _, gradient in self._of_step]).sum()  # or NaN
        engine.check(engine.clip() + nothing)
        engine.step()
        engine.zero()

    def settle(self, engine: Engine) -> None:
        """Moves the encoder by what the cycle has gathered so far, so that it is judged with the filter."""
        if self._runs and self.cycle.steps:
            self._end(engine)

    def drop_step(self) -> None:
        """Forgets what the step has encoded, which is encoded alike, and counted, when it is taken again."""
        self._of_step = []
        self.cycle.forget(self._chunks_before)

    # The cache.

    def _refresh(self, rows: Int64, engine: Any) -> None:
        """Encodes what the step needs and the cycle has not encoded, without a graph."""
        cycle = self.cycle
        if self.parts.settings.refresh == "eager" and not cycle.touched.any():
            rows = np.union1d(rows, np.flatnonzero(self.parts.task.train_counts))
        fresh = rows[~cycle.touched[rows]]
        if len(fresh):
            self._encode(fresh, engine)

    def _encode(self, fresh: Int64, engine: Any) -> None:
        encoding, cycle = self.parts.encoding, self.cycle
        seed = mix(self.parts.seed, cycle.number, len(cycle.chunks))
        chunks = encoding.plan(fresh, seed, items=self._update_items)
        with torch.no_grad():
            if self.replays is None:
                self.replays = encoding.draws(chunks[0], engine.autocast)
            vectors = encoding.spread(
                [encoding.encode(chunk, engine.autocast) for chunk in encoding.mine(chunks)], chunks
            )
        cycle.table.index_copy_(0, encoding.index(fresh), vectors)
        cycle.touched[fresh] = True
        cycle.chunks += chunks

    def _gather(self, batch: Batch, engine: Engine) -> None:
        """Adds the step's gradients to G; those of a step that was skipped count as zero."""
        cycle, skipped = self.cycle, engine.guard.found_inf > 0
        self.probe.remember(batch.step, self._of_step[0][2].masked_fill(skipped, 0.0))
        for rows, index, gradient in self._of_step:
            gradient = gradient.masked_fill(skipped, 0.0)
            cycle.gradients.index_add_(0, index, gradient)
            if self.drift:
                cycle.table.index_add_(0, index, gradient, alpha=-self.drift)
            cycle.owed[rows] = True
        self._of_step = []
        cycle.steps += 1

    def _ends(self, batch: Batch, engine: Engine) -> bool:
        done = batch.step + 1
        return (
            self.cycle.steps >= self.period
            or done % engine.steps_per_epoch == 0
            or done == engine.total_steps
        )

    # The encoder.

    def _end(self, engine: Engine) -> None:
        """Moves the encoder and starts a new cycle."""
        self.probe.look(engine)
        if self.parts.settings.update == "regress":
            self._regress(engine)
        else:
            self._inject(engine)
        self.cycle.end()

    def _inject(self, engine: Engine) -> None:
        """Gives the encoder the vector-Jacobian products of G, in one update or one a chunk."""
        encoding, cycle = self.parts.encoding, self.cycle
        rows = chosen(cycle, self.parts.task.train_counts, self.parts.settings)
        together = self.parts.settings.update == "inject_single"
        index = encoding.index(rows)
        for chunks in self._rounds(self._chunks(rows), together=together):
            for chunk in chunks:
                vectors = encoding.encode(chunk, engine.autocast, again=True)
                if vectors.requires_grad:
                    vectors.backward(self._scaled(cycle.gradients[encoding.index(chunk.rows)], engine))
            self.update(engine)
        cycle.used(rows, index)

    def _regress(self, engine: Engine) -> None:
        """Fits the encoder to the drifted rows (equation 6 of the paper), one update a chunk.

        Records `anchor_ratio`: how much larger the pull back to the vectors of the cycle's start was than the
        gradient, in the mean over updates; above 1 an update mostly regresses to the past.
        """
        encoding, cycle, settings = self.parts.encoding, self.cycle, self.parts.settings
        rows = np.flatnonzero(cycle.owed)
        ratios: list[Tensor] = []
        for _ in range(settings.passes):
            for chunks in self._rounds(self._chunks(rows), together=False):
                for chunk in chunks:
                    # A chunk that is replayed may hold items no step has used, which have nothing to learn.
                    learns = np.flatnonzero(cycle.owed[chunk.rows])
                    index = encoding.index(chunk.rows[learns])
                    vectors = encoding.encode(chunk, engine.autocast, again=True)
                    residual = vectors.index_select(0, encoding.index(learns)) - cycle.table[index]
                    engine.backward(0.5 * residual.square().sum())
                    ratios.append(_anchor_ratio(residual.detach(), self.drift * cycle.gradients[index]))
                self.update(engine)
        cycle.used(rows, encoding.index(rows))
        if ratios:
            engine.note("cycle", {"anchor_ratio": float(torch.stack(ratios).mean())})

    def _chunks(self, rows: Int64) -> list[Chunk]:
        """Returns chunks that hold `rows`: as they were encoded where dropout has to be drawn alike."""
        encoding, cycle = self.parts.encoding, self.cycle
        if self.replays and self.parts.settings.update_share == 1.0:
            return cycle.chunks if cycle.owed[cycle.touched].all() else _holding(cycle.chunks, cycle.owed)
        return encoding.plan(rows, mix(self.parts.seed, cycle.number), items=self._update_items)

    def _rounds(self, chunks: list[Chunk], *, together: bool) -> Iterator[list[Chunk]]:
        """Yields what this rank encodes for each update.

        Ranks take turns alike, also those whose chunks have run out: an update is made by all of them. Items
        of like length lie beside each other, so rounds go in a drawn order.
        """
        encoding = self.parts.encoding
        if together:
            yield encoding.mine(chunks)
            return
        size = encoding.world.size
        most = Limits(encoding.limits.tokens, self._update_items)
        by_rank = [packed([c for c in chunks if c.rank % size == rank], most) for rank in range(size)]
        draw = np.random.default_rng([self.parts.seed, self.cycle.number])
        for number in draw.permutation(max(map(len, by_rank), default=0)):
            mine = by_rank[encoding.world.rank]
            yield mine[number] if number < len(mine) else []

    @property
    def _update_items(self) -> int | None:
        """Most items of a chunk: this rank's part of one update where each round of chunks makes one."""
        settings, ranks = self.parts.settings, self.parts.encoding.world.size
        if settings.update == "inject_single" or settings.update_items is None:
            return None
        return -(-settings.update_items // ranks)

    def _scaled(self, gradient: Tensor, engine: Any) -> Tensor:
        """Returns a gradient with fp16's scale, which the engine takes off again."""
        return gradient if engine.scaler is None else gradient * engine.scaler.scale

    # What a resumed run needs.

    def tensors(self) -> dict[str, Tensor]:
        """Returns the cycle's tensors and the probe's."""
        return {**self.cycle.tensors(), **self.probe.tensors()} if self._runs else {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `tensors` back; the cycle is made of them when it is first asked for."""
        self._loaded, self._cycle = (tensors, self._loaded[1]), None

    def state(self) -> dict[str, Any]:
        """Returns the numbers of the cycle, its period, and whether the encoder draws."""
        of_cycle = self.cycle.state() if self._runs else {}
        return {"period": self.period, "replays": self.replays, **of_cycle, **self.probe.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Takes `state` back."""
        self.period, self.replays = state["period"], state["replays"]
        self._loaded, self._cycle = (self._loaded[0], state), None


def _holding(chunks: list[Chunk], owed: np.ndarray) -> list[Chunk]:
    """Returns the chunks that hold an item with gradients to be used."""
    return [chunk for chunk in chunks if owed[chunk.rows].any()]


def _anchor_ratio(residual: Tensor, gradient: Tensor) -> Tensor:
    """Returns |residual - gradient| / |gradient|: at the first update of a cycle it is 0."""
    return ((residual - gradient).norm() / gradient.norm().clamp(min=1e-30)).double()
