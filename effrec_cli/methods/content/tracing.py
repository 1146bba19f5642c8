"""Task knowledge_tracing: which items a user will answer right, told from the answers before."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.answers import HELD_OUT, Answers, answers_of
from effrec_cli.data.batches import Batch
from effrec_cli.data.contents import contents_of
from effrec_cli.data.tracing import JudgedWindows, TracingBatches, tracing_batch_size
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError, DataError, NonFiniteError
from effrec_cli.evaluation.auc import accuracy, auc, auc_interval, log_loss
from effrec_cli.schema import Config

_ROWS = 128
"""Windows judged at once; the same for every number of ranks, so that none changes a bit of a metric."""

Float64 = NDArray[np.float64]


class KnowledgeTracing:
    """The task over a dataset's answers (data.answers); implements `ContentTask`.

    Args:
        config: of the run; where `method.batch_size` is None it becomes what suits the answers.
        data: a dataset with answers and something that its items say.

    Raises:
        DataError: it has no answers or says nothing of its items, or a held-out part has only right or only
            wrong answers.
    """

    name: ClassVar[str] = "knowledge_tracing"
    item_tensors: ClassVar[tuple[str, ...]] = ("items",)
    monitor: ClassVar[str] = "auc"

    def __init__(self, config: Config, data: RecData) -> None:
        self.config = config
        self.answers = answers_of(data, config.dataset.parts)
        self.contents = contents_of(data)
        self.num_items = self.answers.num_items
        self.train_counts = self.answers.train_counts
        self.training_rows = int(self.train_counts.sum())
        _require_both_kinds(self.answers, data.name)
        if config.method.batch_size is None:
            config.method.batch_size = tracing_batch_size(self.answers, config.model.max_length)

    def batches(self) -> TracingBatches:
        """Returns windows over the training answers."""
        config = self.config
        return TracingBatches(self.answers, config.method.batch_size, config.model.max_length, config.seed)

    def filter(self, vector_dim: int) -> nn.Module:
        """Returns the run's model over vectors of width d, on the CPU, drawn from torch's generator.

        Raises:
            ConfigError: it does not take this task, or its width does not divide into heads.
        """
        settings = dataclasses.asdict(self.config.model)
        kind = model_for(self.name, settings.pop("name"))
        dim, heads = settings.get("dim") or vector_dim, settings.get("num_heads", 1)
        if dim % heads:
            raise ConfigError(
                f"States as wide as the item vectors, {dim}, do not divide into {heads} heads.",
                where=f"model.num_heads={heads}",
                fix=f"model.dim={-(-dim // heads) * heads}, or another number of heads",
            )
        made: nn.Module = kind(vector_dim, **settings)
        return made

    def loss(self, filter: nn.Module, vectors: Tensor, batch: Batch) -> Tensor:
        """Returns the binary cross-entropy of the targets, summed, over `batch.total_targets`."""
        tensors = batch.tensors
        logits = filter(vectors, tensors["items"], tensors["correct"], tensors["lengths"])
        chosen = logits.flatten().index_select(0, tensors["valid"])
        chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        labels = tensors["labels"].to(chosen.dtype)
        return F.binary_cross_entropy_with_logits(chosen, labels, reduction="sum") / batch.total_targets

    def judge(self, filter: nn.Module, table: Tensor, part: str, world: World) -> dict[str, float]:
        """Returns how well the answers of a part are told; every rank calls it and gets the same.

        `auc` pools all answers; `auc_cold` those on items without a training answer, and is left out where
        these are all right or all wrong; `accuracy`, and `log_loss` in nats. Of the test part also the 95 %
        interval of `auc` over users, `auc_low` and `auc_high`.

        Args:
            filter: the model, in evaluation mode.
            table: float [V, d], the vectors of all items.
            part: `valid` or `test`.
            world: who shares the windows.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        logits = self._logits(filter, table, part, world)
        if not np.isfinite(logits).all():
            raise NonFiniteError(
                "The model gave a logit that is not a number.", where=f"judging the {part} part"
            )
        found = self._metrics(logits, part)
        if part == "test":
            low, high, _ = auc_interval(logits, *self._labels_and_users(part), seed=self.config.seed)
            found |= {"auc_low": low, "auc_high": high}
        return found

    def ceiling(self, part: str) -> dict[str, float] | None:
        """Returns what the true probabilities would score, where the source knows them; None elsewhere."""
        if self.answers.chance is None:
            return None
        chance = self.answers.chance[self._positions[part]].astype(np.float64)
        return self._metrics(np.log(chance) - np.log1p(-chance), part)

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the metrics."""
        return {
            "task": self.name,
            **self.answers.protocol,
            "judged": "every held-out answer, from the user's past",
            "auc": "pooled over answers, ties count half",
        }

    @cached_property
    def _windows(self) -> dict[str, JudgedWindows]:
        length = self.config.model.max_length
        return {part: JudgedWindows(self.answers, part, length) for part in HELD_OUT}

    @cached_property
    def _positions(self) -> dict[str, NDArray[np.int64]]:
        """The positions of each held-out part's answers, ascending."""
        return {part: self.answers.of_part(part) for part in HELD_OUT}

    @torch.no_grad()
    def _logits(self, filter: nn.Module, table: Tensor, part: str, world: World) -> Float64:
        """Returns the logits of a part's answers, float64 [n], in the order of their positions."""
        positions = self._positions[part]
        found = torch.zeros(len(positions), dtype=torch.float64, device=table.device)
        for block in self._windows[part].blocks(_ROWS, world.rank, world.size):
            rows, items = np.unique(block.items, return_inverse=True)
            arrays = (rows, items.reshape(block.items.shape), block.correct, block.lengths, block.places)
            row, item, correct, lengths, places = (torch.from_numpy(a).to(table.device) for a in arrays)
            logits = filter(table[row], item, correct, lengths).flatten().index_select(0, places)
            at = torch.from_numpy(np.searchsorted(positions, block.answers)).to(table.device)
            found.index_copy_(0, at, logits.double())
        world.sum_([found])  # each was found by one rank, and is 0 on all others
        return found.cpu().numpy()

    def _metrics(self, logits: Float64, part: str) -> dict[str, float]:
        labels, _ = self._labels_and_users(part)
        cold = self.train_counts[self.answers.items[self._positions[part]]] == 0
        found = {
            "auc": auc(logits, labels),
            "accuracy": accuracy(logits, labels),
            "log_loss": log_loss(logits, labels),
        }
        if _both_kinds(labels[cold]):
            found["auc_cold"] = auc(logits[cold], labels[cold])
        return found

    def _labels_and_users(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        positions = self._positions[part]
        users = np.searchsorted(self.answers.offsets, positions, side="right") - 1
        return self.answers.correct[positions], users


def _both_kinds(labels: NDArray[np.uint8]) -> bool:
    """Returns whether there are right and wrong answers."""
    return 0 < int(labels.sum()) < len(labels)


def _require_both_kinds(answers: Answers, name: str) -> None:
    """Raises DataError where a held-out part has only right or only wrong answers."""
    for part in HELD_OUT:
        labels = answers.correct[answers.of_part(part)]
        if not _both_kinds(labels):
            raise DataError(
                f"All {len(labels):,} answers of the {part} part are {'right' if labels.any() else 'wrong'}, "
                "so there is nothing to tell apart.",
                where=f"dataset {name}",
                fix=f"more answers, or a larger dataset.parts.{part}_share (ready-made parts do not read it)",
            )
