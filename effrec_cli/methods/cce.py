"""Method cce: next-item training by losses that scale to a large catalogue (papers/cce)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import effrec_kernels
import torch
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.next_item import NextItemBatches, batch_size_for
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.methods.factors.footprint import fitting_bytes
from effrec_cli.methods.factors.start import FactorStart, Origin
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.methods.next_item import row_sparse
from effrec_cli.methods.next_item.cheaper import cheaper_loss
from effrec_cli.methods.next_item.choice import Choice
from effrec_cli.methods.next_item.item_table import check_width, start_from
from effrec_cli.methods.next_item.kernels import named_kernel
from effrec_cli.methods.next_item.losses import (
    Draws,
    Rows,
    drawn_loss,
    draws_for,
    full_loss,
    mined_loss,
    sampling_options,
)
from effrec_cli.methods.next_item.packing import settle_packing
from effrec_cli.methods.next_item.width import check_heads, width_for
from effrec_cli.methods.next_item.windows import masking_of, windows_for
from effrec_cli.schema.factors import fitting
from effrec_cli.schema.method_cce import FULL, SAMPLED

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


class CCE(FactorStart):
    """Trains a sequence model to tell next items, or masked ones, from the catalogue or from a sample of it.

    `ce` and `cce` are the full softmax, with and without its [M, V] logits; `ce_sampled` and `cce_sampled`
    the sampled softmax of papers/cce section 1.1, with and without its [M, N, D] tensor; `bce`, `bce_sampled`
    and `gbce` set one or N sigmoids against the positive's; `sce` is a softmax against mined items (1.3).
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_item",)
    _made_draws: Draws | None = None
    _packing: Mapping[str, str] = MappingProxyType({})
    _loss_choice: Choice[str] | None = None
    _rows_choice: Choice[bool] | None = None
    _kept_loss: str | None = None
    _kept_sparse_rows: bool | None = None
    _goes_on: bool = False
    _windows: NextItemBatches

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose when it began, for the checkpoint fits nothing else."""
        self._kept_loss, self._kept_sparse_rows = state.get("loss"), state.get("sparse_rows")

    def prepare(self, data: RecData) -> RecData:
        """Returns the data as they are; what the settings leave open is chosen for them and written down."""
        own, optimizer = self.config.method, self.config.optimizer
        if own.batch_size is None:
            own.batch_size = batch_size_for(data, self.config.model.max_length, own.window)
        self._windows = windows_for(self.config, data)
        fed = (self.config, self._windows, data.num_items)
        if own.loss == "auto":
            dim = self.config.model.dim or width_for(data.num_items)
            self._loss_choice = cheaper_loss(*fed, dim, self.world).kept(self._kept_loss)
            own.loss = self._loss_choice.value
        if optimizer.sparse_rows is None:
            self._rows_choice = row_sparse.pays(*fed).kept(self._kept_sparse_rows)
            optimizer.sparse_rows = self._rows_choice.value
        return super().prepare(data)

    def build(self, data: RecData) -> nn.Module:
        """Returns the sequence model on the CPU, drawn from the run's seed.

        Only `data.num_items` is looked at. Where `model.dim` is None it becomes `width_for` that many items.

        Raises:
            ConfigError: the model does not take this task, its width does not divide into heads, or it cannot
            do what `optimizer.sparse_rows` asks for.
        """
        kind = model_for(self.task, self.config.model.name)
        if self.config.model.dim is None:
            self.config.model.dim = width_for(data.num_items)
        check_width(self.config.model.dim, self.config.method.factors.dim)
        settings = dataclasses.asdict(self.config.model)
        for name in ("name", *masking_of(self.config)):
            del settings[name]
        check_heads(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.model = kind(data.num_items, **settings)
        if self.config.optimizer.sparse_rows:
            row_sparse.give_rows(self.model, self.config)
        return self.model

    def row_sparse(self, model: nn.Module) -> dict[Tensor, int]:
        """Returns the item table where only rows that a step draws are to move, and how many those are."""
        if not self.config.optimizer.sparse_rows:
            return {}
        return {cast(Any, model).item_embeddings: self._rows_of_step}

    @cached_property
    def _rows_of_step(self) -> int:
        """How many rows a step draws; an epoch's windows are looked at for it, so it is done once."""
        shares = self.world.size * self.config.run.accumulate
        return row_sparse.rows_of_step(self.config, self._windows, self.data.num_items, shares)

    def batches(self, data: RecData) -> Batches:
        """Returns windows over the users' training items, some masked where the model asks for it.

        Those of `prepare`, which chooses by them.
        """
        return self._windows

    @property
    def kernel(self) -> str:
        """Who computes the loss on the model's device: `torch`, `triton` or `reference`.

        `ce` and `ce_sampled` are what PyTorch's own operators make of it, whatever `method.kernel` says.

        Raises:
            EnvironmentFault: the kernel asked for cannot run there.
        """
        own = self.config.method
        if own.loss in ("ce", "ce_sampled"):
            return "torch"
        with named_kernel():
            return effrec_kernels.which_kernel(own.kernel, self._items, full=own.loss == "cce")

    def loss(self, batch: Batch) -> Tensor:
        """Returns the sum of the rows' losses over `batch.total_targets`; only rows with a target count.

        Raises:
            EnvironmentFault: the kernel asked for cannot compute it there.
        """
        with named_kernel():
            return self._loss(self._rows(batch))

    def _loss(self, rows: Rows) -> Tensor:
        own, seed = self.config.method, self.config.seed
        if own.loss in FULL:
            return full_loss(rows, own)
        if own.loss == "sce":
            return mined_loss(rows, own, seed, sparse=bool(self.config.optimizer.sparse_rows))
        return drawn_loss(rows, own, seed, self._sampling(rows) if own.loss in SAMPLED else {})

    def fit(self, engine: Engine) -> None:
        """Trains; where the item table is to start from factors, it does so first, unless the run goes on.

        What `model.packed=auto` comes to on this device is settled before, and written down.
        """
        self._packing = settle_packing(self.model, self.config, self._items.device, engine)
        if self.config.method.init_items == "factors":
            self.warm_start()
        super().fit(engine)

    def warm_start(self) -> None:
        """Sets the item table to the factors of all training rows; that of a run that goes on stays.

        Raises:
            DataError: there are no training rows, or no ratings where they are needed.
        """
        self.stages.none("factorise")
        if self._goes_on:
            return
        whole = self.data.unsampled()
        kept = self.factorised(fitting(self.config.method.factors, self._items.shape[1]), whole)
        start_from(self._items, kept.items, torch.from_numpy(whole.train_counts().nonzero()[0]))
        self._say(f"The item table starts from factors {self.choices()['method.factors']}.")

    def bytes_before(self, data: RecData) -> int:
        """Returns what fitting the factorisation takes, beside the model, which is there already."""
        if self.config.method.init_items != "factors":
            return 0
        width = self.config.model.dim or width_for(data.num_items)
        settings = fitting(self.config.method.factors, width)
        model = 4 * data.num_items * width  # the table; the rest of the model is small beside it
        return model + fitting_bytes(settings, Size.of(data.unsampled()), self.world.device)

    def choices(self) -> dict[str, str]:
        """Returns what was left open and became what, and why; `model.packed` once it trains."""
        chosen = {"method.loss": self._loss_choice, "optimizer.sparse_rows": self._rows_choice}
        found = {setting: choice.why for setting, choice in chosen.items() if choice is not None}
        return {**super().choices(), **found, **self._packing}

    def extra_state(self) -> dict[str, Any]:
        """Returns what was chosen and not given, and how it started: a run keeps both wherever it goes on."""
        chosen = {"loss": self._loss_choice, "sparse_rows": self._rows_choice}
        found: dict[str, Any] = {name: choice.value for name, choice in chosen.items() if choice is not None}
        return found | ({} if self.origin is None else {"origin": dataclasses.asdict(self.origin)})

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes a run's state back: its item table is in the checkpoint, and starts from nothing anew."""
        self._goes_on = True
        self.origin = Origin(**state["origin"]) if "origin" in state else None

    def scorer(self) -> SequenceScorer:
        """Returns what ranks the catalogue by the state of the last item, or of a mask behind it."""
        length, items = self.config.model.max_length, self._items
        mask_token = getattr(self.model, "mask_token", None)
        return SequenceScorer(self.model, length, len(items), items.device, mask_token)

    def _sampling(self, rows: Rows) -> dict[str, Any]:
        """Returns who shares negatives, what draws and corrects them."""
        options = sampling_options(rows, self.config.method, self._draws, self.config.model.max_length)
        return options | ({"sparse": True} if self.config.optimizer.sparse_rows else {})

    @property
    def _draws(self) -> Draws:
        """What negatives are drawn by, on the model's device; made from the training counts once."""
        if self._made_draws is None or self._made_draws.device != self._items.device:
            self._made_draws = draws_for(self.config.method, self.data, self._items.device)
        return self._made_draws

    @property
    def _items(self) -> Tensor:
        """The model's item table [V, D]."""
        return cast(Tensor, self.model.item_embeddings)

    def _rows(self, batch: Batch) -> Rows:
        """Returns the hidden states that have a target, and what they are scored against."""
        tensors = batch.tensors
        valid = tensors["valid"]
        read = [tensors[name] for name in ("inputs", "lengths", "valid", "tokens") if name in tensors]
        return Rows(
            self.model(*read),
            self._items,
            tensors["targets"].flatten().index_select(0, valid),
            tensors.get("masked", tensors["lengths"]),
            batch.first_target,
            batch.step,
            batch.total_targets,
        )
