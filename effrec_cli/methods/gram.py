"""Method gram: a content encoder trained once an item, not once an occurrence (papers/gram)."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from effrec_cli import registry
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.methods.base import Method
from effrec_cli.methods.content.chunks import Limits
from effrec_cli.methods.content.encoder import build_encoder
from effrec_cli.methods.content.encoding import Encoding
from effrec_cli.methods.content.graph_memory import recompute_pays
from effrec_cli.methods.content.items import ItemBatches
from effrec_cli.methods.content.modes import EndToEnd, Frozen, Mode, Parts, PerOccurrence
from effrec_cli.methods.content.multi_step import MultiStep
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.methods.content.task import ContentTask
from effrec_cli.methods.next_item.choice import Choice
from effrec_cli.optim import make_optimizer
from effrec_cli.precision import autocast, resolve_precision

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

TASKS = {
    "next_item": "effrec_cli.methods.content.next_item:NextItem",
    "news": "effrec_cli.methods.content.news:News",
    "knowledge_tracing": "effrec_cli.methods.content.tracing:KnowledgeTracing",
}

ITEM_VECTORS = "item_vectors"

_MODES: dict[str, type[Mode]] = {
    "e2e": PerOccurrence,
    "e2e_dedup": EndToEnd,
    "frozen": Frozen,
    "single_step": SingleStep,
    "multi_step": MultiStep,
}


class ContentModel(nn.Module):
    """An encoder and a filter; methods call each for itself.

    Args:
        encoder: contents to vectors.
        filter: the task's model over vectors.
    """

    def __init__(self, encoder: nn.Module, filter: nn.Module) -> None:
        super().__init__()
        self.encoder, self.filter = encoder, filter

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the filter; `method.encoder.compile` is for the encoder."""
        self.filter.compile(*args, **kwargs)


class GRAM(Method):
    """Trains a filter over item vectors and the encoder that makes them.

    The run's model decides the task; `method.mode` how gradients reach the encoder.
    """

    tasks: ClassVar[tuple[str, ...]] = tuple(TASKS)
    reads_contents: ClassVar[bool] = True
    joins_empty: ClassVar[bool] = True
    """Ranks encode for each other, and each counts the encoder's updates for its rate."""
    _content: ContentTask | None = None
    _recompute: Choice[bool] | None = None
    _kept_recompute: bool | None = None
    _kept_lower: bool | None = None
    _served: Tensor | None = None
    _judged: Tensor | None = None
    """The vectors last judged by, as long as no weight has moved since: what a run keeps is encoded once."""

    @property
    def kind(self) -> type[Mode]:
        """How this run trains."""
        return _MODES[self.config.method.mode]

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose by the memory that was free, which there may be less of now."""
        self._kept_recompute = state.get("recompute")
        self._kept_lower = state.get("keeps_lower")

    def prepare(self, data: RecData) -> RecData:
        """Returns the data as they are, after making the task of them."""
        self._content = self._task_of(data)
        if self.config.optimizer.sparse_rows is None:
            self.config.optimizer.sparse_rows = False
        return super().prepare(data)

    @property
    def content(self) -> ContentTask:
        """The task over the data that were prepared."""
        if self._content is None:
            self._content = self._task_of(self.data)
        return self._content

    def _task_of(self, data: RecData) -> ContentTask:
        return cast(ContentTask, registry.load(TASKS[self.task])(self.config, data))

    def build(self, data: RecData) -> nn.Module:
        """Returns encoder and filter on the CPU, what is random in them drawn from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            if self._served is not None:
                self.model = ContentModel(nn.Identity(), self.content.filter(self._served.shape[1]))
                return self.model
            cache = Path(self.config.data_root) / "tokens" if self.config.data_root else None
            encoder = build_encoder(self.config.method.encoder, self.content.contents, cache, self._say)
            self.model = ContentModel(encoder, self.content.filter(encoder.dim))
        if self.config.method.mode == "frozen":
            self._parts_of_model.encoder.requires_grad_(False)
        return self.model

    def _say(self, line: str) -> None:
        if self.world.is_main:
            print(line, file=sys.stderr)

    @property
    def _parts_of_model(self) -> Any:
        return cast(Any, self.model)

    def batches(self, data: RecData) -> ItemBatches:
        """Returns the task's batches, item rows replaced by positions into the vectors to be."""
        together = self.kind.together and self.world.size > 1
        content = self.content
        return ItemBatches(
            content.batches(), content.item_tensors, unique=self.kind.unique, together=together
        )

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves the filter and, where it trains, what moves the encoder."""
        settings = self.config.optimizer
        parts = cast(Any, model)
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

    @cached_property
    def encoding(self) -> Encoding:
        """The encoder and the ranks that share its work."""
        limits = Limits(self.config.method.encoder.batch_tokens)
        return Encoding(self._parts_of_model.encoder, limits, self.world)

    @cached_property
    def mode(self) -> Mode:
        """What runs a step."""
        own, filter = self.config.method, self._parts_of_model.filter
        parts = Parts(self.encoding, filter, self.content, self.rate, own, self.config.seed)
        return self.kind(parts)

    def training_step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch as the mode does."""
        self._judged = None
        return self.mode.step(batch, engine)

    @property
    def cycle_steps(self) -> int:
        """Steps of a cycle; its last one moves the encoder."""
        return self.mode.period if isinstance(self.mode, MultiStep) else 1

    def settle(self, engine: Engine) -> None:
        """Lets the encoder have what a cycle has gathered so far."""
        self._judged = None
        self.mode.settle(engine)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss by ordinary autograd: what every mode computes in one way or another."""
        kind = PerOccurrence if not self.kind.unique else EndToEnd
        return kind(self.mode.parts).forward(batch, self._autocast)

    @cached_property
    def _autocast(self) -> Any:
        device = self.encoding.device
        return partial(autocast, resolve_precision(self.config.run.precision, device), device)

    def fit(self, engine: Engine) -> None:
        """Trains; how long a cycle is and what is chosen by the memory that is free are settled first."""
        assert engine.batches is not None
        self.settle_memory(engine.batches)
        self.mode.begin(engine)
        super().fit(engine)

    def settle_memory(self, batches: Batches) -> None:
        """Settles which of the encoder's states and graphs are kept."""
        self._settle_lower_states()
        if isinstance(self.mode, SingleStep):
            self._recompute = self._settled(batches).kept(self._kept_recompute)
            self.mode.recompute = self._recompute.value

    def _settle_lower_states(self) -> None:
        """Keeps the states of the encoder's lower layers on all ranks or on none, and as the run began.

        Under autocast they are more exact than states made anew: a rank, or a run that goes on, would train
        on other numbers where less memory is free.
        """
        encoder = self._parts_of_model.encoder
        wanted = encoder.may_keep() if self._kept_lower is None else self._kept_lower
        (refused,) = self.world.agree([not wanted])
        encoder.keeps = not refused
        encoder.prepare()

    def _settled(self, batches: Batches) -> Choice[bool]:
        """Returns whether the graph is left away, by what one chunk of it takes here."""
        own, micros = self.config.method, self.config.run.accumulate
        if own.recompute is not None:
            return Choice(own.recompute, "as given")
        share = own.memory_share
        return recompute_pays(self.encoding, batches, self._autocast, micros=micros, share=share)

    @property
    def kernel(self) -> str | None:
        """Who computes the task's loss, where kernels can: `torch`, `triton` or `reference`."""
        kernel = getattr(self.content, "kernel", None)
        return None if kernel is None else cast(str, kernel(self.encoding.device))

    def choices(self) -> dict[str, str]:
        """Returns what was left open and became what, and why, once it trains."""
        if self._recompute is None or self.config.method.recompute is not None:
            return {}
        return {"method.recompute": self._recompute.why}

    def judge(self, part: str, limit: int | None = None) -> dict[str, float]:
        """Returns the task's metrics, from vectors encoded anew by the current weights.

        With a `limit` only as much is encoded as is encoded at once, to see what memory it takes.
        """
        training = self.model.training
        self.model.eval()
        try:
            if limit is not None:
                self.encoding.table(self._autocast, only_first=True)
                return {}
            self._judged = self.table()
            with torch.no_grad():
                return self.content.judge(self._parts_of_model.filter, self._judged, part, self.world)
        finally:
            self.model.train(training)

    def table(self) -> Tensor:
        """Returns the vectors of the whole catalogue [V, d] by the current weights, without dropout."""
        if self._served is not None:
            return self._served.to(next(self.model.parameters()).device)
        return self.mode.table(self._autocast)

    def keepsakes(self) -> dict[str, Tensor]:
        """Returns the vectors of the catalogue where the task ranks it."""
        if not hasattr(self.content, "scorer"):
            return {}
        return {ITEM_VECTORS: self.table() if self._judged is None else self._judged}

    def serve(self, kept: dict[str, Tensor]) -> None:
        """Takes the vectors, so that neither the encoder nor what items say is needed to rank."""
        self._served = kept[ITEM_VECTORS]

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the tensors of `state_dict` back; of a model that serves, the filter's alone."""
        self._judged = None
        if self._served is not None:
            state = {name: tensor for name, tensor in state.items() if name.startswith("filter.")}
        super().load_state_dict(state)

    def scorer(self) -> Scorer:
        """Returns what ranks the catalogue, where the task's model can.

        Raises:
            ConfigError: it cannot.
        """
        scorer = getattr(self.content, "scorer", None)
        if scorer is None:
            return super().scorer()
        return cast(Scorer, scorer(self._parts_of_model.filter, self.table()))

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the task's metrics."""
        return self.content.protocol()

    @property
    def training_rows(self) -> int:
        """Rows with a loss in an epoch."""
        return self.content.training_rows

    @property
    def ceiling(self) -> dict[str, float] | None:
        """What the best possible would score on the test part, where the task knows it."""
        ceiling = getattr(self.content, "ceiling", None)
        return None if ceiling is None else ceiling("test")

    def extra_state(self) -> dict[str, Any]:
        """Returns the encoder's updates, the mode's numbers, and what was chosen."""
        chosen = {} if self._recompute is None else {"recompute": self._recompute.value}
        chosen["keeps_lower"] = self._parts_of_model.encoder.keeps
        return {"encoder_steps": self.rate.steps, **chosen, **self.mode.state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes `extra_state` back."""
        self.rate.steps = state["encoder_steps"]
        self.mode.load(state)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Returns the cycle's vectors and gradients."""
        return self.mode.tensors()

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `extra_tensors` back."""
        self.mode.load_tensors(tensors)
