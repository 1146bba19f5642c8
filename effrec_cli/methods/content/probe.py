"""How stale the gradients of a cycle have become when the encoder uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.data.batches import Share
from effrec_cli.methods.content.encoding import seeded
from effrec_cli.methods.content.modes import rows_of
from effrec_cli.seeds import mix

if TYPE_CHECKING:
    from effrec_cli.engine import Engine
    from effrec_cli.methods.content.multi_step import MultiStep

FRESH, STALE = 0.9, 0.5
"""Cosines above which a cycle may be twice as long, and below which it is halved."""
_NEVER = -1


class Probe:
    """Compares the gradients of a cycle's first step with those of the same batch at the cycle's end.

    Without drift the vectors have not changed in between, but the filter has: the cosine says how far that
    has turned the gradients which the encoder is about to use. Every `probe_every` cycles the first
    micro-batch runs through the filter once more, with the dropout it had; the encoder is not called.

    Args:
        mode: whose cycle is looked at.
    """

    def __init__(self, mode: MultiStep) -> None:
        self._mode = mode
        self._stale: Tensor | None = None
        self._step = _NEVER

    def remember(self, step: int, gradient: Tensor) -> None:
        """Keeps the gradient [U, d] of a step's first micro-batch where it opens a cycle to be probed."""
        every, cycle = self._mode.parts.settings.probe_every, self._mode.cycle
        if every and cycle.steps == 0 and cycle.number % every == 0:
            self._stale, self._step = gradient.clone(), step

    def look(self, engine: Engine) -> None:
        """Records the cosine and adapts the period where that is asked for; nothing in other cycles."""
        stale, self._stale = self._stale, None
        if stale is None:
            return
        cosine = float(F.cosine_similarity(stale.flatten(), self._again(engine).flatten(), dim=0))
        engine.note("probe", {"staleness_cosine": cosine, "period": float(self._mode.period)})
        if self._mode.parts.settings.adapt_period:
            self._adapt(cosine, engine.steps_per_epoch)

    def _adapt(self, cosine: float, longest: int) -> None:
        mode = self._mode
        if cosine < STALE:
            mode.period = max(1, mode.period // 2)
        elif cosine > FRESH:
            mode.period = max(mode.period, min(longest, 2 * mode.period))

    def _again(self, engine: Engine) -> Tensor:
        """Returns the gradient [U, d] of the remembered micro-batch at the filter's weights of now."""
        mode, world = self._mode, self._mode.parts.encoding.world
        epoch, position = divmod(self._step, engine.steps_per_epoch)
        share = Share(world.rank, world.size, 0, engine.config.run.accumulate)
        assert engine.batches is not None
        batch = engine.batches.batch(epoch, position, share, self._step).to(world.device)
        index = mode.parts.encoding.index(rows_of(batch))
        vectors = mode.cycle.table.index_select(0, index).requires_grad_()
        with seeded(mix(engine.config.seed, self._step, world.rank, 0), world.device):
            loss = mode.loss(vectors, batch, engine.autocast)
        scale = 1.0 if engine.scaler is None else engine.scaler.scale  # small ones would be 0 in fp16
        return mode.parts.encoding.summed(torch.autograd.grad(loss * scale, vectors)[0])

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs besides `state`."""
        return {} if self._stale is None else {"probe": self._stale}

    def state(self) -> dict[str, Any]:
        """Returns which step is remembered."""
        return {"probe_step": self._step}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes `tensors` and `state` back."""
        found = tensors.get("probe")
        self._stale = None if found is None else found.to(self._mode.parts.encoding.world.device)
        self._step = state["probe_step"]
