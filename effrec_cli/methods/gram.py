"""Method gram: a content encoder trained once an item, not once an occurrence (papers/gram)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn

from effrec_cli.data.batches import Batches
from effrec_cli.data.types import RecData
from effrec_cli.methods.content.chunks import Limits
from effrec_cli.methods.content.encoder import build_encoder
from effrec_cli.methods.content.graph_memory import recompute_pays
from effrec_cli.methods.content.method import TASKS, ContentMethod, ContentModel
from effrec_cli.methods.content.modes import EndToEnd, Frozen, Mode, PerOccurrence
from effrec_cli.methods.content.multi_step import MultiStep
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.methods.next_item.choice import Choice
from effrec_cli.optim import make_optimizer

_MODES: dict[str, type[Mode]] = {
    "e2e": PerOccurrence,
    "e2e_dedup": EndToEnd,
    "frozen": Frozen,
    "single_step": SingleStep,
    "multi_step": MultiStep,
}


class GRAM(ContentMethod):
    """Trains a filter over item vectors and the encoder that makes them.

    The run's model decides the task; `method.mode` how gradients reach the encoder.
    """

    tasks: ClassVar[tuple[str, ...]] = tuple(TASKS)
    _recompute: Choice[bool] | None = None
    _kept_recompute: bool | None = None

    @property
    def kind(self) -> type[Mode]:
        """How this run trains."""
        return _MODES[self.config.method.mode]

    @property
    def limits(self) -> Limits:
        """How many tokens are encoded at once."""
        return Limits(self.config.method.encoder.batch_tokens)

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose by the memory that was free, which there may be less of now."""
        super().recall(state)
        self._kept_recompute = state.get("recompute")

    def build_encoder(self, cache: Path | None) -> Any:
        """Returns the encoder of the settings, over what the task's items say."""
        tokens = cache / "tokens" if cache else None
        return build_encoder(self.config.method.encoder, self.content.contents, tokens, self.say)

    def build(self, data: RecData) -> nn.Module:
        """Returns encoder and filter on the CPU, what is random in them drawn from the run's seed."""
        model = super().build(data)
        if self.config.method.mode == "frozen":
            self.encoder.requires_grad_(False)
        return model

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves the filter and, where it trains, what moves the encoder."""
        settings = self.config.optimizer
        parts = cast(ContentModel, model)
        made = [make_optimizer(parts.filter.parameters(), settings)]
        if any(parameter.requires_grad for parameter in parts.encoder.parameters()):
            peak = self.config.method.encoder.peak_lr(settings.lr)
            self.rate.optimizer = make_optimizer(parts.encoder.parameters(), replace(settings, lr=peak))
            made.append(self.rate.optimizer)
        return made

    @cached_property
    def rate(self) -> EncoderRate:
        """The encoder's learning rate."""
        own, settings = self.config.method.encoder, self.config.optimizer
        warmup = settings.warmup_steps if own.warmup_steps is None else own.warmup_steps
        return EncoderRate(settings, own.peak_lr(settings.lr), warmup)

    @property
    def cycle_steps(self) -> int:
        """Steps of a cycle; its last one moves the encoder."""
        return self.mode.period if isinstance(self.mode, MultiStep) else 1

    def settle_memory(self, batches: Batches) -> None:
        """Settles which of the encoder's states and graphs are kept."""
        super().settle_memory(batches)
        if isinstance(self.mode, SingleStep):
            self._recompute = self._settled(batches).kept(self._kept_recompute)
            self.mode.recompute = self._recompute.value

    def _settled(self, batches: Batches) -> Choice[bool]:
        """Returns whether the graph is left away, by what one chunk of it takes here."""
        own, micros = self.config.method, self.config.run.accumulate
        if own.recompute is not None:
            return Choice(own.recompute, "as given")
        share = own.memory_share
        return recompute_pays(self.encoding, batches, self.autocast, micros=micros, share=share)

    def choices(self) -> dict[str, str]:
        """Returns what was left open and became what, and why, once it trains."""
        if self._recompute is None or self.config.method.recompute is not None:
            return {}
        return {"method.recompute": self._recompute.why}

    def extra_state(self) -> dict[str, Any]:
        """Returns the encoder's updates, the mode's numbers, and what was chosen."""
        chosen = {} if self._recompute is None else {"recompute": self._recompute.value}
        return {**super().extra_state(), **chosen}
