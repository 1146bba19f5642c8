"""What methods share whose item vectors come from what items say: an encoder, a filter and a task."""

from __future__ import annotations

import sys
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
from effrec_cli.methods.content.encoding import Encoding
from effrec_cli.methods.content.items import ItemBatches
from effrec_cli.methods.content.modes import EndToEnd, Mode, Parts, PerOccurrence
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.task import ContentTask
from effrec_cli.methods.content.trained_with import changes
from effrec_cli.precision import autocast, resolve_precision

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

TASKS = {
    "next_item": "effrec_cli.methods.content.next_item:NextItem",
    "news": "effrec_cli.methods.content.news:News",
    "knowledge_tracing": "effrec_cli.methods.content.tracing:KnowledgeTracing",
}

ITEM_VECTORS = "item_vectors"


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
        """Compiles the filter; the encoder has a setting of its own."""
        self.filter.compile(*args, **kwargs)


class ContentMethod(Method):
    """Trains a filter over item vectors and the encoder that makes them.

    A subclass says which encoder (`build_encoder`) and how gradients reach it (`kind`); the run's model
    decides the task.
    """

    reads_contents: ClassVar[bool] = True
    joins_empty: ClassVar[bool] = True
    """Ranks encode for each other, and each counts the encoder's updates for its rate."""
    _content: ContentTask | None = None
    _kept_lower: bool | None = None
    _trained_with: dict[str, Any] | None = None
    _served: Tensor | None = None
    _judged: Tensor | None = None
    """The vectors last judged by, as long as no weight has moved since: what a run keeps is encoded once."""

    @property
    def kind(self) -> type[Mode]:
        """How this run trains."""
        return EndToEnd

    @property
    def limits(self) -> Limits:
        """How much is encoded at once."""
        raise TypeError(f"{type(self).__name__} does not say how much it encodes at once")

    def build_encoder(self, cache: Path | None) -> Any:
        """Returns the encoder on the CPU, what is random in it drawn from torch's generator.

        Args:
            cache: where what is made of contents once is kept; None keeps nothing.
        """
        raise TypeError(f"{type(self).__name__} does not say what encodes its items")

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose by the memory that was free, and what its frozen backbones were."""
        self._kept_lower = state.get("keeps_lower")
        self._trained_with = state.get("backbones")

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
            encoder = self.build_encoder(Path(self.config.data_root) if self.config.data_root else None)
            self.model = ContentModel(encoder, self.content.filter(encoder.dim))
        for line in changes(self._trained_with or {}, self.frozen_backbones):
            self.say(line)
        return self.model

    @property
    def frozen_backbones(self) -> dict[str, Any]:
        """Facts by modality of the backbones that taps are read of, whose weights a run does not keep."""
        return dict(getattr(getattr(self.encoder, "source", None), "backbones", {}))

    def say(self, line: str) -> None:
        """Tells the user what takes time or memory; one rank does."""
        if self.world.is_main:
            print(line, file=sys.stderr)

    @property
    def encoder(self) -> Any:
        """The encoder of the model that was built."""
        return cast(Any, self.model).encoder

    @property
    def filter(self) -> nn.Module:
        """The filter of the model that was built."""
        return cast(nn.Module, cast(Any, self.model).filter)

    def batches(self, data: RecData) -> ItemBatches:
        """Returns the task's batches, item rows replaced by positions into the vectors to be."""
        together = self.kind.together and self.world.size > 1
        content = self.content
        return ItemBatches(
            content.batches(), content.item_tensors, unique=self.kind.unique, together=together
        )

    @cached_property
    def rate(self) -> EncoderRate:
        """The encoder's learning rate; the engine's own schedule where no optimizer is given to it."""
        settings = self.config.optimizer
        return EncoderRate(settings, settings.lr, settings.warmup_steps)

    @cached_property
    def encoding(self) -> Encoding:
        """The encoder and the ranks that share its work."""
        return Encoding(self.encoder, self.limits, self.world)

    @cached_property
    def mode(self) -> Mode:
        """What runs a step."""
        own, seed = self.config.method, self.config.seed
        return self.kind(Parts(self.encoding, self.filter, self.content, self.rate, own, seed))

    def training_step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch as the mode does."""
        self._judged = None
        return self.mode.step(batch, engine)

    def drop_step(self) -> None:
        """Undoes what micro-batches of a step that is given up have left in the mode."""
        self.mode.drop_step()

    def settle(self, engine: Engine) -> None:
        """Lets the encoder have what a cycle has gathered so far."""
        self._judged = None
        self.mode.settle(engine)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss by ordinary autograd: what every mode computes in one way or another."""
        kind = PerOccurrence if not self.kind.unique else EndToEnd
        return kind(self.mode.parts).forward(batch, self.autocast)

    @cached_property
    def autocast(self) -> Any:
        """The context of the run's precision."""
        device = self.encoding.device
        return partial(autocast, resolve_precision(self.config.run.precision, device), device)

    def fit(self, engine: Engine) -> None:
        """Trains; how long a cycle is and what is chosen by the memory that is free are settled first."""
        assert engine.batches is not None
        self.settle_memory(engine.batches)
        self.mode.begin(engine)
        super().fit(engine)

    def settle_memory(self, batches: Batches) -> None:
        """Keeps states of the encoder on all ranks or on none, and as the run began.

        Under autocast they are more exact than states made anew: a rank, or a run that goes on, would train
        on other numbers where less memory is free.
        """
        wanted = self.encoder.may_keep() if self._kept_lower is None else self._kept_lower
        (refused,) = self.world.agree([not wanted])
        self.encoder.keeps = not refused
        self.encoder.prepare()

    @property
    def kernel(self) -> str | None:
        """Who computes the task's loss, where kernels can: `torch`, `triton` or `reference`."""
        kernel = getattr(self.content, "kernel", None)
        return None if kernel is None else cast(str, kernel(self.encoding.device))

    def judge(self, part: str, limit: int | None = None) -> dict[str, float]:
        """Returns the task's metrics, from vectors encoded anew by the current weights.

        With a `limit` only as much is encoded as is encoded at once, to see what memory it takes.
        """
        training = self.model.training
        self.model.eval()
        try:
            if limit is not None:
                self.encoding.table(self.autocast, only_first=True)
                return {}
            self._judged = self.table()
            with torch.no_grad():
                found = self.content.judge(self.filter, self._judged, part, self.world)
            self.by_frequency = getattr(self.content, "by_frequency", None)
            return found
        finally:
            self.model.train(training)

    def table(self) -> Tensor:
        """Returns the vectors of the whole catalogue [V, d] by the current weights, without dropout."""
        if self._served is not None:
            return self._served.to(next(self.model.parameters()).device)
        return self.mode.table(self.autocast)

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
        return cast(Scorer, scorer(self.filter, self.table()))

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
        """Returns the encoder's updates, the mode's numbers, what was chosen, and what its backbones are."""
        found = {"encoder_steps": self.rate.steps, "keeps_lower": self.encoder.keeps, **self.mode.state()}
        there = self._trained_with or self.frozen_backbones  # a resumed run was begun with those of then
        return {**found, "backbones": there} if there else found

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes `extra_state` back."""
        self.rate.steps = state["encoder_steps"]
        self.mode.load(state)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Returns what the mode keeps between steps."""
        return self.mode.tensors()

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `extra_tensors` back."""
        self.mode.load_tensors(tensors)
