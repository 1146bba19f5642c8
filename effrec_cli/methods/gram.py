"""Method gram: a content encoder trained once an item, not once an occurrence (papers/gram)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn

from effrec_cli.data.types import RecData
from effrec_cli.methods.content.chunks import Limits
from effrec_cli.methods.content.encoder import build_encoder
from effrec_cli.methods.content.method import TASKS, ContentModel
from effrec_cli.methods.content.modes import EndToEnd, Frozen, Mode, PerOccurrence
from effrec_cli.methods.content.multi_step import MultiStep
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.recomputing import RecomputingMethod
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.optim import make_optimizer

_MODES: dict[str, type[Mode]] = {
    "e2e": PerOccurrence,
    "e2e_dedup": EndToEnd,
    "frozen": Frozen,
    "single_step": SingleStep,
    "multi_step": MultiStep,
}


class GRAM(RecomputingMethod):
    """Trains a filter over item vectors and the encoder that makes them.

    The run's model decides the task; `method.mode` how gradients reach the encoder.
    """

    tasks: ClassVar[tuple[str, ...]] = tuple(TASKS)

    @property
    def kind(self) -> type[Mode]:
        """How this run trains."""
        return _MODES[self.config.method.mode]

    @property
    def limits(self) -> Limits:
        """How many tokens are encoded at once."""
        return Limits(self.config.method.encoder.batch_tokens)

    @property
    def limits_setting(self) -> str:
        """The setting that `limits` are of."""
        return "method.encoder.batch_tokens"

    def relief(self) -> list[str]:
        """Returns settings that lower the memory of a training step, best first, and what each does."""
        found = super().relief()
        if issubclass(self.kind, EndToEnd):
            instead = "method.mode=single_step method.recompute=true holds one chunk's activations"
            return [f"{instead}, with the gradient of {self.config.method.mode}", *found]
        return found

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
