"""Method dsl on task next_item: a sequence model whose item table, and nothing else, is sparse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.next_item import NextItemBatches, batch_size_for
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.methods.dsl import DSL
from effrec_cli.methods.next_item.packing import settle_packing
from effrec_cli.methods.next_item.width import check_heads, width_for
from effrec_cli.methods.next_item.windows import masking_of, windows_for
from effrec_cli.methods.sparse.network import TableMaker, slots_of, tables_in
from effrec_cli.methods.sparse.scorer import served_network
from effrec_cli.methods.sparse.sequence_scorer import TableScorer
from effrec_cli.methods.sparse.softmax import Targets, full, sampled
from effrec_cli.models.sparse.sequence import reading
from effrec_cli.schema.dsl_next_item import NUM_NEGATIVES

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


class NextItemDSL(DSL):
    """Trains a sequence model to tell next items, or masked ones, by vectors of which few numbers are stored.

    Windows and losses are method cce's; `cce` is the full softmax, `cce_sampled` has negatives that all
    targets of a step share.
    """

    reads_weights: ClassVar[bool] = False
    _windows: NextItemBatches
    _packing: Mapping[str, str] = MappingProxyType({})

    def _settle_by_model(self) -> None:
        own = self.own
        own.loss = "cce_sampled" if own.loss == "auto" else own.loss
        own.num_negatives = NUM_NEGATIVES if own.num_negatives is None else own.num_negatives
        super()._settle_by_model()

    def _settle_batches(self, data: RecData) -> None:
        own, length = self.own, self.config.model.max_length
        self._settle_width(data.num_items)
        if own.batch_size is None:
            own.batch_size = batch_size_for(data, length, own.sequence_window)
        self._windows = windows_for(self.config, data, own.sequence_window)

    def _settle_width(self, num_items: int) -> None:
        """Settles D: the model's, the method's, or what suits so many items."""
        model, own = self.config.model, self.own
        model.dim = own.dim = model.dim or own.dim or width_for(num_items)

    @property
    def _share_of_sums(self) -> float:
        """Under the full softmax each micro-batch has gradients, float32, of all rows whose turn it is."""
        return 1 / (1 + 2 * self.config.run.accumulate) if self.own.loss == "cce" else 1.0

    def build(self, data: RecData) -> nn.Module:
        """Returns the sequence model on the CPU, drawn from the run's seed.

        Only `data.num_items` is looked at.

        Raises:
            ConfigError: the model's width does not divide into heads.
        """
        self._settle_width(data.num_items)
        settings = dataclasses.asdict(self.config.model)
        for name in ("name", *masking_of(self.config)):
            del settings[name]
        check_heads(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            table = TableMaker(self.config)(data.num_items)
            kind = model_for("next_item", self.config.model.name)
            self.model = cast(Any, reading(kind, table, settings))
        return self.model

    def batches(self, data: RecData) -> Batches:
        """Returns windows over the users' training items, some masked where the model asks for it."""
        return self._windows

    def row_sparse(self, model: nn.Module) -> dict[Tensor, int]:
        """Returns the table, where a step reads rows of it, and how many at most."""
        if self.own.loss == "cce":
            return {}
        table, own = tables_in(model)["items"], self.own
        targets = -(-(own.batch_size or 1) * self.config.model.max_length // self.config.run.accumulate)
        rows = 2 * targets // self.world.size + (own.num_negatives or 0)  # what is read and what is told
        return {table.weights: slots_of(table, rows)}

    def fit(self, engine: Engine) -> None:
        """Trains, and changes places on the way; settles what `model.packed=auto` comes to before."""
        self._packing = settle_packing(self.model, self.config, self._device, engine)
        super().fit(engine)

    def choices(self) -> dict[str, str]:
        """Returns how the table is stored, where that was left open, and `model.packed` once it trains."""
        return {**super().choices(), **self._packing}

    def loss(self, batch: Batch) -> Tensor:
        """Returns the sum of the targets' losses over `batch.total_targets`."""
        tensors, own = batch.tensors, self.own
        read = [tensors[name] for name in ("inputs", "lengths", "valid", "tokens") if name in tensors]
        hidden = self.model(*read)
        items = tensors["targets"].flatten().index_select(0, tensors["valid"])
        targets, table = Targets(hidden, items, batch.total_targets), tables_in(self.model)["items"]
        if own.loss == "cce":
            return full(table, targets)
        assert own.num_negatives is not None
        return sampled(table, targets, own.num_negatives, seed=self.config.seed, step=batch.step)

    def scorer(self) -> SequenceScorer:
        """Returns what ranks the catalogue by the state of the last item, or of a mask behind it."""
        served = served_network(self.model, self.own)
        return TableScorer(served, self.config.model.max_length, self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.model.state_dict().values())).device
