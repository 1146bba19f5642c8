"""Single-step GRAM: one encoder call an item, gradients injected (papers/gram sections 1.2 to 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from effrec_cli.data.batches import Batch
from effrec_cli.methods.content.chunks import Chunk, Int64
from effrec_cli.methods.content.items import PART
from effrec_cli.methods.content.modes import Mode, rows_of

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


@dataclass
class Encoded:
    """Items whose vectors were made, and whose gradients are still to come.

    Attributes:
        rows: int64 [n], item rows.
        chunks: those of them that this rank encoded.
        parts: the vectors of these chunks; with their graph, where it is kept.
        vectors: of all rows, [n, d]; leaves.
    """

    rows: Int64
    chunks: list[Chunk]
    parts: list[Tensor]
    vectors: Tensor


class SingleStep(Mode):
    """The end-to-end gradient of the whole step at one encoder call an item.

    The vectors h_i of all ranks' items are encoded, each on one rank, and become leaves; the filter's
    backward pass gives g_i = dL/dh_i, summed over occurrences and ranks; the encoder gets the
    vector-Jacobian product sum_i J_i^T g_i. No pseudo-target h - g is made, which would cancel.

    Attributes:
        recompute: encode without a graph first and, chunk by chunk, once more for the backward pass (form c):
            the encoder's activations are those of one chunk. Otherwise its graph is kept (form b).
    """

    together: ClassVar[bool] = True
    recompute: bool = False
    _held: Encoded | None = None
    """What the last micro-batch read; the next one reads it again where it needs the same items."""

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs encoder and filter forward, the filter backward, then the encoder.

        Micro-batches of a step that need the same items, as where each is told from all of the step's, have
        them encoded once: their gradients are summed and injected after the last one.
        """
        held = self._encoded(batch, engine)
        loss = self.loss(held.vectors, batch, engine.autocast)
        engine.backward(loss)
        if engine.last_micro_batch:
            self._inject(engine)
            self.update(engine)
        return self.report(loss)

    def settle(self, engine: Engine) -> None:
        """Injects what no last micro-batch came for, as in a step that is only tried."""
        self._inject(engine)

    def _encoded(self, batch: Batch, engine: Engine) -> Encoded:
        """Returns the vectors of a micro-batch's items, as leaves; what other items gathered is injected."""
        rows = rows_of(batch)
        if batch.host[PART][0] == 0:
            self._held = None  # of a step that broke off, whose weights and draws may be others
        if self._held is not None and np.array_equal(self._held.rows, rows):
            return self._held
        self._inject(engine)
        encoding = self.parts.encoding
        chunks = encoding.plan(rows, self.key(batch))
        mine = encoding.mine(chunks)
        with torch.set_grad_enabled(not self.recompute):
            parts = [encoding.encode(chunk, engine.autocast) for chunk in mine]
        self._held = Encoded(rows, mine, parts, encoding.spread(parts, chunks).requires_grad_())
        return self._held

    def _inject(self, engine: Engine) -> None:
        """Adds the vector-Jacobian products of this rank's chunks to the encoder's gradients."""
        held, self._held = self._held, None
        if held is None:
            return
        encoding = self.parts.encoding
        gradient = encoding.summed(_gradient(held.vectors))
        del held.vectors
        for chunk, kept in zip(held.chunks, held.parts, strict=True):
            vectors = encoding.encode(chunk, engine.autocast, again=True) if self.recompute else kept
            if vectors.requires_grad:
                vectors.backward(gradient.index_select(0, encoding.index(chunk.places)))


def _gradient(leaf: Tensor) -> Tensor:
    """Returns a leaf's gradient, zeros where nothing depended on it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
