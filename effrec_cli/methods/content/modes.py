"""How gradients reach the encoder: what every mode of training shares, and the plain end-to-end ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.data.batches import Batch
from effrec_cli.methods.content.encoding import Context, Encoding, Int64
from effrec_cli.methods.content.items import ITEMS, PART
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.task import ContentTask
from effrec_cli.seeds import mix

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


@dataclass(frozen=True)
class Parts:
    """What a mode works with.

    Attributes:
        encoding: the encoder and the ranks that share its work.
        filter: the task's model.
        task: what is learnt.
        rate: moves the encoder's learning rate and counts its updates.
        settings: of the method.
        seed: of the run.
    """

    encoding: Encoding
    filter: nn.Module
    task: ContentTask
    rate: EncoderRate
    settings: Any
    seed: int

    @property
    def sums(self) -> bool:
        """Whether the loss is the sum over a step's rows, where a method offers it, and not their mean."""
        return getattr(self.settings, "reduction", "mean") == "sum"


class Mode:
    """One way to train an encoder and a filter; see the subclasses.

    Attributes:
        unique: whether an item is encoded once, however often it occurs.
        together: whether ranks encode the items of all their shares together, each item on one of them.
    """

    unique: ClassVar[bool] = True
    together: ClassVar[bool] = False

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch, and after the last one the updates; returns scalars to log."""
        raise TypeError(f"{type(self).__name__} does not say how it steps")

    def begin(self, engine: Engine) -> None:
        """Gets ready to train, after a checkpoint was put back."""

    def settle(self, engine: Engine) -> None:
        """Applies what is still held back; called before a validation."""

    def drop_step(self) -> None:
        """Undoes what micro-batches of a step that is given up have left, but for gradients."""

    def table(self, autocast: Context) -> Tensor:
        """Returns the vectors of the whole catalogue [V, d] by the current weights, without dropout."""
        return self.parts.encoding.table(autocast)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors of a state between two steps, which a resumed run needs."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `tensors` back."""

    def state(self) -> dict[str, Any]:
        """Returns the JSON-able rest of that state."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Takes `state` back."""

    def loss(self, vectors: Tensor, batch: Batch, autocast: Context) -> Tensor:
        """Returns the share's part of the step's loss; one without samples or items has none."""
        if not batch.size or not len(vectors):
            return vectors.sum() * 0.0
        with autocast():
            loss = self.parts.task.loss(self.parts.filter, vectors, batch)
        return loss * batch.total_targets if self.parts.sums else loss

    def update(self, engine: Engine) -> None:
        """Moves encoder and filter by the gradients they have: one norm, one check, one step."""
        self.parts.rate.set(engine)
        engine.update()
        self.parts.rate.stepped()

    def key(self, batch: Batch) -> int:
        """Returns a seed for what the encoder draws in this micro-batch, on this rank where it is alone."""
        return mix(self.parts.seed, batch.step, *batch.host[PART].tolist())

    def report(self, loss: Tensor) -> dict[str, Tensor]:
        """Returns what is logged: the loss, and how many items this micro-batch had encoded."""
        encoded = self.parts.encoding.encoded
        counts = {f"encoded_{name}": torch.tensor(float(count)) for name, count in encoded.items()}
        encoded.update(dict.fromkeys(encoded, 0))
        return {"loss": loss.detach(), **counts}


class EndToEnd(Mode):
    """Ordinary autograd through filter and encoder; an item is encoded once a micro-batch and rank.

    That is mode `e2e_dedup`. The gather's backward sums an item's gradients before the encoder's.
    """

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs forward and backward of encoder and filter as one graph."""
        loss = self.forward(batch, engine.autocast)
        engine.backward(loss)
        if engine.last_micro_batch:
            self.update(engine)
        return self.report(loss)

    def forward(self, batch: Batch, autocast: Context) -> Tensor:
        """Returns the loss of the micro-batch, differentiable in encoder and filter."""
        encoding = self.parts.encoding
        chunks = encoding.plan(rows_of(batch), self.key(batch), together=False)
        vectors = encoding.assembled([encoding.encode(chunk, autocast) for chunk in chunks], chunks)
        return self.loss(vectors, batch, autocast)


class PerOccurrence(EndToEnd):
    """Mode `e2e`: an item is encoded for every place where it occurs, as users' histories come."""

    unique: ClassVar[bool] = False


class Frozen(Mode):
    """The encodings are computed once and only the filter trains (the papers' NoFinetune)."""

    _table: Tensor | None = None

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs forward and backward of the filter."""
        encoding = self.parts.encoding
        vectors = self.table(engine.autocast).index_select(0, encoding.index(rows_of(batch)))
        loss = self.loss(vectors, batch, engine.autocast)
        if loss.requires_grad:  # as it does not in a share without items
            engine.backward(loss)
        if engine.last_micro_batch:
            engine.update()
        return self.report(loss)

    def table(self, autocast: Context) -> Tensor:
        """Returns all items' vectors, encoded when first asked for."""
        if self._table is None:
            self._table = self.parts.encoding.table(autocast)
        return self._table


def rows_of(batch: Batch) -> Int64:
    """Returns the item rows that the vectors of a micro-batch stand for."""
    found: Int64 = batch.host[ITEMS]
    return found
