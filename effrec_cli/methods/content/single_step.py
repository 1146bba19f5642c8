"""Single-step GRAM: one encoder call an item, gradients injected (papers/gram sections 1.2 to 1.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from effrec_cli.data.batches import Batch
from effrec_cli.methods.content.chunks import Chunk
from effrec_cli.methods.content.modes import Mode, rows_of

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


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

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs encoder and filter forward, the filter backward, then the encoder."""
        encoding = self.parts.encoding
        chunks = encoding.plan(rows_of(batch), self.key(batch))
        mine = encoding.mine(chunks)
        with torch.set_grad_enabled(not self.recompute):
            parts = [encoding.encode(chunk, engine.autocast) for chunk in mine]
        vectors = encoding.spread(parts, chunks).requires_grad_()
        loss = self.loss(vectors, batch, engine.autocast)
        engine.backward(loss)
        gradient = encoding.summed(_gradient(vectors))
        del vectors
        self._inject(mine, parts, gradient, engine)
        if engine.last_micro_batch:
            self.update(engine)
        return self.report(loss)

    def _inject(self, mine: list[Chunk], parts: list[Tensor], gradient: Tensor, engine: Engine) -> None:
        """Adds the vector-Jacobian products of this rank's chunks to the encoder's gradients."""
        encoding = self.parts.encoding
        for chunk, kept in zip(mine, parts, strict=True):
            vectors = encoding.encode(chunk, engine.autocast, again=True) if self.recompute else kept
            if vectors.requires_grad:
                vectors.backward(gradient.index_select(0, encoding.index(chunk.places)))


def _gradient(leaf: Tensor) -> Tensor:
    """Returns a leaf's gradient, zeros where nothing depended on it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
