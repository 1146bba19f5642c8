"""Method cadc where the run tells labels: a network on a sample of labelled rows (papers/cadc 4.2)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.data.batches import Batch
from effrec_cli.data.click_batches import ClickBatches
from effrec_cli.data.click_features import ClickFeatures, reading_of
from effrec_cli.data.click_rows import Kept, keep_rows
from effrec_cli.data.clicks import Clicks, clicks_of
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.methods.base import Method
from effrec_cli.methods.cadc import CADC
from effrec_cli.methods.ctr.judge import called, logits_of, metrics_of_labels, stamp
from effrec_cli.methods.ctr.network import make_click_network, positives_of
from effrec_cli.methods.factors.footprint import fitting_bytes
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.schema.sample import is_sampled


class ClickCADC(CADC):
    """Trains a network on a sample of the rows, with vectors from a factorisation of other rows' clicks."""

    reads_contents: ClassVar[bool] = True
    """Rows to judge lie with the dataset, and so does what the network knows of their features."""

    def prepare(self, data: RecData) -> RecData:
        """Returns the data; the factors are fitted on clicks of the training part before."""
        if self.config.optimizer.sparse_rows is None:
            self.config.optimizer.sparse_rows = False
        self.data = data
        if self.features.has_ids and self.own.embedding != "rand" and not self.rehearses:
            mine = self.kept.rows if self.factorise == "rest" else None
            self._factors = self.factorised(self.own.factors, positives_of(self.clicks, mine))
        self.own.batch_size = self.batches(data).batch_size
        return data

    def bytes_before(self, data: RecData) -> int:
        """Returns what fitting the factorisation takes, of all clicks at most; 0 without one."""
        if self.own.embedding == "rand" or not self.features.has_ids:
            return 0
        clicks = self.clicks
        positives = int((clicks.labels[clicks.of_part("train")] == 1).sum())
        size = Size(len(clicks.user_ids), len(clicks.item_ids), positives)
        return fitting_bytes(self.own.factors, size, self.world.device)

    @cached_property
    def clicks(self) -> Clicks:
        """The labelled rows of the dataset."""
        own = self.own
        return clicks_of(self.data, self.config.dataset.parts, own.attributes, own.text_dim)

    @cached_property
    def features(self) -> ClickFeatures:
        """What the network reads of them."""
        return ClickFeatures(self.clicks, reading_of(self.config.dataset))

    @cached_property
    def kept(self) -> Kept:
        """The rows that are trained on."""
        own, clicks = self.own, self.clicks  # reading clicks is no part of the stage
        weighted = own.negative_correction == "weights"
        drawn = is_sampled(own.sample) or own.negative_rate < 1
        with self.stages.of("sample") if drawn else nullcontext():
            return keep_rows(clicks, own.sample, own.negative_rate, weighted=weighted)

    @property
    def factorise(self) -> str:
        """Which clicks are factorised: `rest` unless the settings say otherwise, or leave none of them."""
        if self.own.factorise != "auto":
            return self.own.factorise
        return "rest" if is_sampled(self.own.sample) else "all"

    @property
    def shift(self) -> float:
        """What logits are moved by, since fewer zeros were trained on: log w; 0 where these weigh more."""
        return math.log(self.own.negative_rate) if self.own.negative_correction == "shift" else 0.0

    def build(self, data: RecData) -> nn.Module:
        """Returns the network on the CPU, drawn from the run's seed."""
        self.data = data
        tables = self._tables_of_ids(data) if self.features.has_ids else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            made = make_click_network(self.config, tables, self.features, self.kept.base_rate)
        self.model = cast(Any, made)
        return made

    def _tables_of_ids(self, data: RecData) -> tuple[Tensor, Tensor]:
        if self._factors is not None:
            return self._factors.users, self._factors.items
        dim, clicks = self.own.factors.dim, self.clicks
        users, items = (len(clicks.user_ids), dim), (len(clicks.item_ids), dim)
        return torch.zeros(users, device="cpu"), torch.zeros(items, device="cpu")

    def batches(self, data: RecData) -> ClickBatches:
        """Returns the rows that are kept, in steps."""
        return ClickBatches(self.features, self.kept, self.own.batch_size, self.config.seed)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the binary cross-entropy of the rows by their weights, over the rows of the step."""
        tensors = batch.tensors
        logits, weights = called(self.model, tensors).float(), tensors.get("weights")
        each = F.binary_cross_entropy_with_logits(logits, tensors["labels"], weights, reduction="sum")
        return each / batch.total_targets

    def judge(self, part: str, limit: int | None = None) -> dict[str, float]:
        """Returns the rows' metrics; with a `limit` none, since it is to see what memory a block takes."""
        rows = self.clicks.of_part(part)[:limit]
        training = self.model.training
        self.model.eval()
        try:
            logits = logits_of(self.model, self.features, rows, self.shift, self.world)
        finally:
            self.model.train(training)
        return {} if limit is not None else metrics_of_labels(logits, self.clicks.labels[rows])

    def scorer(self) -> Scorer:
        """Refuses: nothing is ranked.

        Raises:
            ConfigError: always.
        """
        return Method.scorer(self)

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the metrics."""
        return stamp(self.clicks.protocol)

    @property
    def training_rows(self) -> int:
        """Rows that are trained on."""
        return len(self.kept.rows)

    @property
    def ceiling(self) -> dict[str, float] | None:
        """What the true probabilities would score on the test part, where the source knows them."""
        if self.clicks.chance is None:
            return None
        rows = self.clicks.of_part("test")
        chance = np.clip(self.clicks.chance[rows].astype(np.float64), 1e-12, 1 - 1e-12)
        return metrics_of_labels(np.log(chance) - np.log1p(-chance), self.clicks.labels[rows])

    def choices(self) -> dict[str, str]:
        """Returns what the factorisation chose, or that there is none, and what logits are moved by."""
        told = super().choices()
        if not self.features.has_ids:
            told["method.embedding"] = "none: rows name no users and items"
        elif self._factors is not None:
            told["method.factorise"] = self.factorise
        if self.shift:
            told["method.negative_correction"] = f"logits are judged with {self.shift:+.4f}"
        return told

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes a saved network."""
        self.model.load_state_dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the network's tensors."""
        return dict(self.model.state_dict())
