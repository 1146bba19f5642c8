"""Task news: which of the items that a user was shown together they click, told from those clicked before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.batches import Batch
from effrec_cli.data.news import contents_of_impressions, impressions_of
from effrec_cli.data.news_batches import NewsBatches, histories
from effrec_cli.data.types import Int64, RecData
from effrec_cli.distributed import World
from effrec_cli.errors import DataError
from effrec_cli.evaluation.impressions import TIE_RULE, ImpressionSums
from effrec_cli.schema import Config

NUM_NEGATIVES = 4
"""Non-clicks beside each click in training, as published, where the settings leave it open."""

_BLOCK_BYTES = 1 << 26
"""What judging a block of impressions may take beside the table. The same on every machine, and blocks are
dealt to ranks whole, so that neither changes a bit of a score."""

_COPIES = 8
"""Arrays of the size of a history's vectors that a filter holds at once: its input, what attention makes of
it, and what additive attention compares."""


class News:
    """The task over a dataset's impressions (data.news); implements `ContentTask`.

    Args:
        config: of the run; where `method.batch_size` is None it becomes what suits the clicks.
        data: a dataset with impressions and something that its items say.

    Raises:
        DataError: it has no impressions, none that teaches, a held-out part with none to judge, or says
            nothing of its items.
    """

    name: ClassVar[str] = "news"
    item_tensors: ClassVar[tuple[str, ...]] = ("history", "candidates")
    monitor: ClassVar[str] = "auc"

    def __init__(self, config: Config, data: RecData) -> None:
        self.config, self.data = config, data
        self.impressions = impressions_of(data, config.dataset.parts)
        self.contents = contents_of_impressions(data)
        self.num_items = self.impressions.num_items
        self.train_counts = self.impressions.train_counts
        method = config.method
        negatives = method.num_negatives or NUM_NEGATIVES
        length = config.model.max_length
        self._batches = NewsBatches(self.impressions, method.batch_size, negatives, length, config.seed)
        self.training_rows = self._batches.num_samples
        method.batch_size = self._batches.batch_size
        self._require_judged()

    def _require_judged(self) -> None:
        """Raises DataError where a held-out part has no impression with a click and a non-click."""
        for part, rows in self._judged.items():
            if not len(rows):
                raise DataError(
                    f"No impression of the {part} part has both a click and a non-click, "
                    "so there is nothing to tell apart.",
                    where=f"dataset {self.data.name}, {len(self.impressions.of_part(part)):,} impressions "
                    f"in the {part} part",
                    fix="take a part whose labels are published (MIND's test part has none)",
                )

    def batches(self) -> NewsBatches:
        """Returns training clicks, each with non-clicks of its impression."""
        return self._batches

    def filter(self, vector_dim: int) -> nn.Module:
        """Returns the run's model over vectors of width d, on the CPU, drawn from torch's generator.

        Raises:
            ConfigError: it does not take this task.
        """
        settings = dataclasses.asdict(self.config.model)
        kind = model_for(self.name, settings.pop("name"))
        settings.pop("max_length")  # How much of a history is read is decided where batches are made.
        made: nn.Module = kind(vector_dim, **settings)
        return made

    def loss(self, filter: nn.Module, vectors: Tensor, batch: Batch) -> Tensor:
        """Returns the cross-entropy of each click among its 1 + K, summed, over `batch.total_targets`."""
        tensors = batch.tensors
        scores = filter(vectors, tensors["history"], tensors["lengths"], tensors["candidates"])
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        clicked = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        return F.cross_entropy(scores, clicked, reduction="sum") / batch.total_targets

    @torch.no_grad()
    def judge(self, filter: nn.Module, table: Tensor, part: str, world: World) -> dict[str, float]:
        """Returns `auc`, `mrr`, `ndcg@5` and `ndcg@10` within impressions, averaged over them.

        Every rank calls it and gets the same. `auc_cold` and its like are over the impressions alone of which
        a clicked item is cold, where there are any (evaluation.impressions has the tie rule).

        Args:
            filter: the model, in evaluation mode.
            table: float [V, d], the vectors of all items.
            part: `valid` or `test`.
            world: who shares the impressions.

        Raises:
            NonFiniteError: a score is NaN.
        """
        sums = ImpressionSums(table.device)
        for number, rows in enumerate(self._blocks(part, table.shape[1])):
            if number % world.size == world.rank:
                self._add(sums, rows, self._scores(filter, table, rows))
        sums.reduce(world)
        return sums.means()

    def ceiling(self, part: str) -> dict[str, float] | None:
        """Returns what the true chances of a click would score; None where the source does not know them."""
        chance = self.data.side.get("impressions_chance")
        if chance is None:
            return None
        sums = ImpressionSums(torch.device("cpu"))
        rows = self._judged[part]
        self._add(sums, rows, torch.from_numpy(np.asarray(chance)[rows].reshape(-1)))
        return sums.means()

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the metrics."""
        shown = self.impressions
        return {
            "task": self.name,
            **shown.protocol,
            "impressions": {part: len(rows) for part, rows in self._judged.items()},
            "left_out": {part: len(shown.of_part(part)) - len(rows) for part, rows in self._judged.items()},
            "candidates": "those shown",
            "ties": TIE_RULE,
        }

    @cached_property
    def _judged(self) -> dict[str, Int64]:
        """The impressions of each held-out part that have a click and a non-click, ascending."""
        mixed = self.impressions.mixed()
        held = {part: self.impressions.of_part(part) for part in ("valid", "test")}
        return {part: rows[mixed[rows]] for part, rows in held.items()}

    def _blocks(self, part: str, dim: int) -> Iterator[Int64]:
        """Yields a part's impressions in blocks that take about `_BLOCK_BYTES` to judge."""
        rows = self._judged[part]
        if self.config.evaluation.block_rows:
            bounds = np.arange(0, len(rows), self.config.evaluation.block_rows)[1:]
        else:
            shown = np.diff(self.impressions.offsets)[rows]
            cost = np.cumsum(4 * dim * (2 * shown + _COPIES * self.config.model.max_length))
            bounds = np.flatnonzero(np.diff(cost // _BLOCK_BYTES)) + 1
        yield from np.split(rows, bounds)

    def _scores(self, filter: nn.Module, table: Tensor, rows: Int64) -> Tensor:
        """Returns the scores of some impressions' candidates, float [n], one impression after the other."""
        shown = self.impressions
        cells, sizes = shown.cells(rows)
        past = histories(shown, rows, self.config.model.max_length)
        candidates = shown.candidates[cells].astype(np.int64)
        history, lengths, owned, items = (
            torch.from_numpy(array).to(table.device) for array in (*past, sizes, candidates)
        )
        model: Any = filter
        users: Tensor = model.users(table, history, lengths).repeat_interleave(owned, dim=0)
        return (users * table[items]).sum(-1)

    def _add(self, sums: ImpressionSums, rows: Int64, scores: Tensor) -> None:
        """Adds the scores of some impressions' candidates."""
        shown = self.impressions
        cells, sizes = shown.cells(rows)
        arrays: list[NDArray[Any]] = [shown.clicks[cells], sizes, shown.with_cold_click(rows)]
        sums.add(scores, *(torch.from_numpy(array).to(scores.device) for array in arrays))
