"""Task next_item over item vectors: the next item is told from candidates that are encoded for a step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import effrec_kernels
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.data.batches import Batch
from effrec_cli.data.candidates import CandidateBatches
from effrec_cli.data.contents import Contents, contents_of
from effrec_cli.data.in_batch import InBatches
from effrec_cli.data.next_item import batch_size_for
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.cold import cold_cases
from effrec_cli.evaluation.deciles import ByFrequency, tally_of
from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.evaluation.protocol import protocol_of
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.methods.next_item.in_batch import compiled_in_batch_loss, in_batch_loss
from effrec_cli.methods.next_item.kernels import named_kernel
from effrec_cli.methods.next_item.width import check_heads, width_for
from effrec_cli.models.content_sasrec import ContentSASRec
from effrec_cli.schema import Config
from effrec_cli.schema.content_next_item import PATH, NextItemSettings

FILTERS = {"sasrec": ContentSASRec}
"""What reads item vectors, by the model whose settings it has."""

TOLD_OF_COLD = ("ndcg", "hr")

COLUMNS = 8
"""Added to states and vectors for the correction; so many keep a width that matrix units like."""


class NextItem:
    """The task over a dataset's sequences; implements `ContentTask`.

    Args:
        config: of the run; where `method.batch_size` is None it becomes what suits the data, and
            `model.dim` likewise.
        data: a dataset with something that its items say.

    Raises:
        ConfigError: the model has no form that reads item vectors.
        DataError: the dataset says nothing of its items, or no user has two training items.
    """

    name: ClassVar[str] = "next_item"
    item_tensors: ClassVar[tuple[str, ...]] = ("inputs", "candidates")
    monitor: ClassVar[str] = "ndcg@10"
    by_frequency: ByFrequency | None = None
    _graph: Callable[..., Tensor] | None = None

    def __init__(self, config: Config, data: RecData) -> None:
        if config.model.name not in FILTERS:
            raise _reads_no_vectors(config)
        self.config, self.data = config, data
        self.num_items = data.num_items
        self.train_counts = data.train_counts()
        # Cold is what the whole dataset never trains on, so that a sample is judged on the same cases.
        self._all_counts = data.unsampled().train_counts()
        if config.method.batch_size is None:
            config.method.batch_size = batch_size_for(data, config.model.max_length, self._own.window)

    @cached_property
    def contents(self) -> Contents:
        """What the items say."""
        return contents_of(self.data)

    @property
    def training_rows(self) -> int:
        """Rows with a loss in an epoch."""
        return int(self.batches().targets_per_epoch)

    @property
    def _own(self) -> NextItemSettings:
        return cast(NextItemSettings, self.config.method.next_item)

    @property
    def temperature(self) -> float:
        """What products of states and vectors are divided by."""
        return self._own.temperature or math.sqrt(self.config.model.dim)

    def batches(self) -> CandidateBatches | InBatches:
        """Returns windows over the users' training items, and what a step's targets are told from."""
        return self._batches

    @cached_property
    def _batches(self) -> CandidateBatches | InBatches:
        own, config = self._own, self.config
        windows = (self.data, config.method.batch_size, config.model.max_length, own.window, config.seed)
        if own.candidates == "batch":
            return InBatches(*windows)
        whole = own.candidates == "all"
        return CandidateBatches(*windows, whole=whole, num_negatives=own.num_negatives)

    def filter(self, vector_dim: int) -> nn.Module:
        """Returns the run's model over vectors of width d, on the CPU, drawn from torch's generator.

        Raises:
            ConfigError: its width does not divide into heads, or without a projection is not d.
        """
        settings = self.settings_over(vector_dim)
        return FILTERS[settings.pop("name")](vector_dim, projection=self._own.projection, **settings)

    def settings_over(self, vector_dim: int) -> dict[str, Any]:
        """Returns the settings of the run's model over vectors of width d; its width is then decided.

        Raises:
            ConfigError: its width does not divide into heads, or without a projection is not d.
        """
        projection = self._own.projection
        if self.config.model.dim is None:
            self.config.model.dim = width_for(self.num_items) if projection else vector_dim
        settings = dataclasses.asdict(self.config.model)
        if not projection and settings["dim"] != vector_dim:
            raise _other_width(settings["dim"], vector_dim)
        check_heads(settings)
        return settings

    def loss(self, filter: nn.Module, vectors: Tensor, batch: Batch) -> Tensor:
        """Returns the softmax of each target against the candidates, summed, over `batch.total_targets`.

        Raises:
            EnvironmentFault: the kernel asked for cannot compute it there.
        """
        tensors, model = batch.tensors, cast(Any, filter)
        if self._own.candidates == "batch":
            return self._in_batch_loss(model, vectors, batch)
        hidden = model(vectors, tensors["inputs"], tensors["lengths"], tensors["valid"])
        items = model.item_vectors(vectors.index_select(0, tensors["candidates"]))
        with named_kernel(f"{PATH}.kernel"):
            return self._loss(hidden, items, batch)

    def _loss(self, hidden: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """Returns the loss of states [m, D] against candidates [C, D].

        Of the catalogue's sum of exp(score), that of the targets of the step is known and the rest is
        estimated from the k drawn rows, each of which stands for 1 / q = (V - |T|) / k: given the targets,
        the sum that the logarithm is taken of is right on average (Horvitz and Thompson 1952).
        """
        own, log_q, labels = self._own, batch.tensors["log_q"], batch.tensors["labels"]
        options: dict[str, Any] = {
            "normalizer": batch.total_targets,
            "temperature": self.temperature,
            "kernel": own.kernel,
        }
        if own.loss == "cce_sampled":
            options |= {"seed": self.config.seed, "step": batch.step, "row_offset": batch.first_target}
            options |= {"num_negatives": own.num_sampled, "correction": "exact"}
            if own.correction == "logq":
                options |= {"correction": "logq", "log_q": log_q - math.log(len(log_q))}
            return cast(Tensor, effrec_kernels.sampled_cross_entropy(hidden, items, labels, **options))
        if own.correction == "logq" and own.candidates == "step":
            hidden, items = with_scores_added(hidden, items, -self.temperature * log_q)
        return effrec_kernels.linear_cross_entropy(hidden, items, labels, **options)

    def _in_batch_loss(self, model: Any, vectors: Tensor, batch: Batch) -> Tensor:
        """Returns the loss of item vectors [U, d] against the items of the step's windows.

        Where the model is compiled, model and loss are one graph, for windows and items of any number.
        """
        options = getattr(model, "compiled_with", None)
        loss = in_batch_loss if options is None else self._compiled_loss(options)
        return loss(
            model,
            vectors,
            batch.tensors,
            corrected=self._own.correction == "popularity",
            temperature=self.temperature,
            normalizer=batch.total_targets,
        )

    def _compiled_loss(self, options: dict[str, Any]) -> Callable[..., Tensor]:
        if self._graph is None:
            self._graph = compiled_in_batch_loss(options)
        return self._graph

    def judge(self, filter: nn.Module, table: Tensor, part: str, world: World) -> dict[str, float]:
        """Returns the metrics of the full ranking; every rank calls it and gets the same.

        Those whose names end in `_cold` are of the cases whose targets training has never met, of which there
        are `cases_cold`; both are left out where there are none. Of these NDCG and hit rate are told.

        Args:
            filter: the model, in evaluation mode.
            table: float [V, d], the vectors of all items.
            part: `valid` or `test`.
            world: who shares the cases.
        """
        cases = self.data.valid if part == "valid" else self.data.test
        scorer, settings = self.scorer(filter, table), self.config.evaluation
        tally = tally_of(self.data, cases, settings, scorer.device) if part == "test" else None
        found = rank_cases(scorer, self.data, cases, settings, world=world, tally=tally)
        self.by_frequency = None if tally is None else tally.by_frequency()
        cold = cold_cases(self.data, cases, self._all_counts)
        if not len(cold):
            return found
        told = [name for name in settings.metrics if name in TOLD_OF_COLD] or settings.metrics[:1]
        of_cold = rank_cases(scorer, self.data, cold, replace(settings, metrics=told), world=world)
        return {
            **found,
            **{f"{name}_cold": value for name, value in of_cold.items()},
            "cases_cold": len(cold),
        }

    def scorer(self, filter: nn.Module, table: Tensor) -> SequenceScorer:
        """Returns what ranks the catalogue, from vectors [V, d] of all its items."""
        length = self.config.model.max_length
        return SequenceScorer(_OverTable(filter, table), length, self.num_items, table.device)

    def kernel(self, device: torch.device) -> str:
        """Returns who computes the loss on `device`: `torch`, `triton` or `reference`.

        Raises:
            EnvironmentFault: the kernel asked for cannot run there.
        """
        if self._own.candidates == "batch":
            return "torch"
        with named_kernel(f"{PATH}.kernel"):
            like = torch.zeros(1, device=device)
            return effrec_kernels.which_kernel(self._own.kernel, like, full=self._own.loss == "cce")

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the metrics: that of every other ranking."""
        return protocol_of(self.data, self.config.evaluation)

    def ceiling(self, part: str) -> dict[str, float] | None:
        """Returns what the best possible ranker scores, where the source knows it; None elsewhere."""
        return self.data.ceiling if part == "test" else None


def with_scores_added(hidden: Tensor, items: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states and vectors whose products are those of `hidden` and `items` plus a number an item.

    The number is two columns, rounded and what rounding left over, so that 16-bit products have it to 16
    bits; the columns' gradients go nowhere.

    Args:
        hidden: [M, D].
        items: [C, D].
        added: float [C].

    Returns:
        [M, D + COLUMNS] and [C, D + COLUMNS].
    """
    rounded = added.to(torch.bfloat16).to(added.dtype)
    columns = F.pad(torch.stack([rounded, added - rounded], dim=1), (0, COLUMNS - 2))
    ones = F.pad(hidden.new_ones(len(hidden), 2), (0, COLUMNS - 2))
    return torch.cat([hidden, ones], dim=1), torch.cat([items, columns.to(items.dtype)], dim=1)


class _OverTable(nn.Module):
    """A filter over the vectors of the whole catalogue, as a scorer takes a model.

    Args:
        filter: reads item vectors.
        table: float [V, d].
    """

    def __init__(self, filter: nn.Module, table: Tensor) -> None:
        super().__init__()
        self.filter, self.training = filter, filter.training
        with torch.no_grad():
            self.item_embeddings: Tensor = cast(Any, filter).item_vectors(table)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Returns hidden states [B, L, D]."""
        states: Tensor = cast(Any, self.filter).states(self.item_embeddings, inputs, lengths)
        return states


def _reads_no_vectors(config: Config) -> ConfigError:
    return ConfigError(
        f"Model '{config.model.name}' looks its items up in a table, and has no form that reads the vectors "
        f"of method {config.method.name}.",
        where=f"model={config.model.name}",
        fix=f"model={' or model='.join(FILTERS)}",
    )


def _other_width(dim: int, vector_dim: int) -> ConfigError:
    return ConfigError(
        f"Item vectors are {vector_dim} wide and the model {dim}, and no projection is between them.",
        where=f"model.dim={dim} with {PATH}.projection=false",
        fix=f"model.dim={vector_dim}, or {PATH}.projection=true",
    )
